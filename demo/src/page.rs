//! The pages: the frame, and the shop as Rust shows it. `maud` escapes whatever comes from outside.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::panel;
use crate::php::PhpState;
use crate::shop::{Content, Item, MENU, Reply, Shop};
use crate::site::Site;
use crate::trace::Exchange;
use crate::words::Language;

const STYLE: &str = include_str!("style.css");
/// A coat hanger, given here so that no browser asks for an icon.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' \
    stroke='%23c2412d' stroke-width='2' stroke-linecap='round' stroke-linejoin='round'%3E%3Cpath d='M9.5 6a2.5 2.5 0 1 1 \
    3.6 2.2c-.7.4-1.1.9-1.1 1.8v.6l9 6.2c1.3.9.7 2.7-.8 2.7H3.8c-1.5 0-2.1-1.8-.8-2.7l9-6.2'/%3E%3C/svg%3E";

/// A whole page: the shop on one side, and what just happened on the other.
pub(crate) fn page(site: &Site, reply: &Reply, before: Option<&Exchange>, now: &Exchange, nonce: &str) -> Markup {
    let language = reply.language;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Pizzeria Cloakroom" }
                link rel="icon" href=(PreEscaped(ICON));
                style nonce=(nonce) { (PreEscaped(STYLE)) }
            }
            body.php[language == Language::Php] {
                header.top {
                    h1 { (hanger()) "Pizzeria Cloakroom" }
                    p.motto { "The ticket is the cookie, the coat is the session." }
                    (languages(site, language))
                }
                div.columns {
                    main {
                        (shop(&reply.content))
                        (served_by(site, language))
                    }
                    (panel::panel(site, before, now))
                }
            }
        }
    }
}

fn hanger() -> Markup {
    html! {
        svg.hanger viewBox="0 0 24 24" aria-hidden="true" {
            path d="M9.5 6a2.5 2.5 0 1 1 3.6 2.2c-.7.4-1.1.9-1.1 1.8v.6l9 6.2c1.3.9.7 2.7-.8 2.7H3.8c-1.5 0-2.1-1.8-.8-2.7l9-6.2" {}
        }
    }
}

fn languages(site: &Site, language: Language) -> Markup {
    let tab = |to: &str, name: &str, current: bool| {
        html! { a href=(to) aria-current=[current.then_some("page")] { (name) } }
    };
    html! {
        nav.languages aria-label="Language" {
            (tab("/", "Rust", language == Language::Rust))
            @if let PhpState::Running(_) = site.php {
                (tab("/php/", "PHP", language == Language::Php))
            } @else {
                span.off { "PHP" }
            }
        }
    }
}

fn shop(content: &Content) -> Markup {
    match content {
        Content::Shop(shop) => html! {
            (welcome(shop))
            section.counter aria-labelledby="counter" {
                h2 #counter { "Pizza counter" }
                form method="post" action="/pizza" {
                    output #pizza { (shop.pizza) }
                    button { "One more pizza" }
                }
            }
            (menu())
            (cart(shop))
        },
        Content::Bye => html! {
            section.welcome aria-labelledby="welcome" {
                h2 #welcome { "Goodbye" }
                p { "Your session is gone, and your browser has no mark any more." }
                p { a.button href="/" { "Come in again" } }
            }
        },
        Content::Html(html) => PreEscaped(html.clone()),
        Content::SeeOther(_) => html! {},
    }
}

fn welcome(shop: &Shop) -> Markup {
    html! {
        section.welcome aria-labelledby="welcome" {
            @if let Some(user) = &shop.user {
                h2 #welcome { "Welcome, " (user) }
                form method="post" action="/logout" { button.quiet { "Log out" } }
            } @else {
                h2 #welcome { "Welcome, whoever you are" }
                form method="post" action="/login" {
                    label for="name" { "Your name" }
                    span.field {
                        input #name name="name" required maxlength="40" autocomplete="off";
                        button { "Log in" }
                    }
                    p.hint { "Any name will do; there is no password." }
                }
            }
        }
    }
}

fn menu() -> Markup {
    html! {
        section aria-labelledby="menu" {
            h2 #menu { "Menu" }
            ul.menu {
                @for &(name, price) in MENU.iter() {
                    li {
                        span { (name) }
                        span.price { (euros(price)) }
                        form method="post" action="/cart/add" {
                            input type="hidden" name="name" value=(name);
                            button.small aria-label={ "Add " (name) } { "Add" }
                        }
                    }
                }
            }
        }
    }
}

fn cart(shop: &Shop) -> Markup {
    html! {
        section aria-labelledby="cart" {
            h2 #cart { "Cart" }
            @if shop.cart.is_empty() {
                p.hint { "Nothing in it yet." }
            } @else {
                ul.menu.cart {
                    @for Item { name, price, qty } in &shop.cart {
                        li {
                            span { b.qty { (qty) " ×" } " " (name) }
                            span.price { (euros(price.saturating_mul(*qty))) }
                            form method="post" action="/cart/take" {
                                input type="hidden" name="name" value=(name);
                                button.small.quiet aria-label={ "Take one " (name) " out" } { "Take out" }
                            }
                        }
                    }
                }
                p.total { span { "Total" } span.price { (euros(shop.total())) } }
            }
        }
    }
}

fn served_by(site: &Site, language: Language) -> Markup {
    html! {
        p.served {
            @match (language, &site.php) {
                (Language::Php, PhpState::Running(way)) => {
                    b { "Served by PHP " (way.version) ":" } " this half of the page, with " code { "$_SESSION" }
                    ". The frame and the panel are the demo's."
                }
                (_, PhpState::Running(_)) => {
                    b { "Served by Rust." } " The same shop runs " a href="/php/" { "as a PHP page" }
                    " on the same session files: take your cart with you."
                }
                (_, PhpState::Missing) => {
                    b { "Served by Rust." } " PHP is not installed here: with the package " code { "php-cli" }
                    " this shop also runs as a PHP page, on the same session files."
                }
                (_, PhpState::Unwanted) => {
                    b { "Served by Rust." } " PHP was left out with " code { "--no-php" } "."
                }
                (_, PhpState::Failed(why)) => { b { "Served by Rust." } " PHP does not run: " (why) "." }
            }
        }
    }
}

fn euros(cents: i64) -> String {
    format!("{}.{:02} €", cents / 100, cents % 100)
}
