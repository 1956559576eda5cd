//! The panel: what just happened, for people who want to understand sessions.

use std::os::unix::ffi::OsStrExt;

use maud::{Markup, html};

use crate::php::PhpState;
use crate::site::Site;
use crate::trace::{Coat, Exchange, File};
use crate::words::{Deed, LIFE, Language};

pub(crate) fn panel(site: &Site, before: Option<&Exchange>, now: &Exchange) -> Markup {
    // After a form, what it did is the news, and that this page was fetched is not.
    let news = before.unwrap_or(now);
    html! {
        aside aria-labelledby="news" {
            p.kicker {
                "What just happened"
                @if let (Language::Php, PhpState::Running(way)) = (news.language, &site.php) { " in PHP " (way.version) }
                @else { " in Rust" }
                (step(news))
            }
            h2 #news { (news.act.headline()) }
            (deed(news))
            h3 { "On the wire" }
            @if let Some(before) = before { (exchange(before)) }
            (exchange(now))
            h3 { "In the cloakroom" }
            (coat(site, before, now))
            (life(news))
            p.warning {
                b { "Only because it teaches:" }
                " this page shows session ids. Whoever knows the id has the session, so a real service never shows one, \
                 and neither do cloakroom's own logs and errors."
            }
        }
    }
}

/// Which step this was, in short; the list below tells all of them.
fn step(exchange: &Exchange) -> Markup {
    let main = steps(exchange).first();
    html! {
        @for (at, step) in (1..).zip(&LIFE).filter(|(at, _)| Some(at) == main) {
            span.step { "Step " (at) " of " (LIFE.len()) ": " (step.name) }
        }
    }
}

fn deed(exchange: &Exchange) -> Markup {
    let (own, other, name) = match exchange.language {
        Language::Rust => (Language::Rust, Language::Php, "In PHP"),
        Language::Php => (Language::Php, Language::Rust, "In Rust"),
    };
    let Deed { code, text } = exchange.act.deed(own);
    html! {
        div.deed {
            p { (text) }
            pre { code { (code) } }
            p.hint { (name) ": " code { (exchange.act.deed(other).code) } }
        }
    }
}

/// The steps that this was, the one that matters most first.
fn steps(exchange: &Exchange) -> &'static [usize] {
    let marked = exchange.after.is_some() && exchange.before != exchange.after;
    exchange.act.steps(marked)
}

fn life(exchange: &Exchange) -> Markup {
    let steps = steps(exchange);
    html! {
        h3 { "The life of a session" }
        ol.life {
            @for (at, step) in (1..).zip(&LIFE) {
                @let main = steps.first() == Some(&at);
                li .now[main] .passed[!main && steps.contains(&at)] aria-current=[main.then_some("step")] {
                    b { (step.name) }
                    span { (step.text) }
                }
            }
        }
    }
}

fn exchange(exchange: &Exchange) -> Markup {
    let ids = Ids::of(exchange);
    html! {
        dl.wire {
            div.line {
                dt { "Request" }
                dd { code { (exchange.request) } span.status { " → " (exchange.status) } }
            }
            div.line {
                dt { "Cookie" }
                dd {
                    @match &exchange.cookie {
                        Some(cookie) => code { (ids.mark(cookie)) },
                        None => span.none { "none: the browser has no mark" },
                    }
                }
            }
            div.line {
                dt { "Set-Cookie" }
                dd {
                    @for line in &exchange.set_cookie { code { (ids.mark(line)) } }
                    @if exchange.set_cookie.is_empty() {
                        span.none {
                            @if exchange.after.is_some() { "none: the browser already has its mark" }
                            @else { "none: nobody is marked" }
                        }
                    }
                }
            }
        }
    }
}

fn coat(site: &Site, before: Option<&Exchange>, now: &Exchange) -> Markup {
    let moved = before.into_iter().chain([now]).find(|exchange| exchange.before_lives.is_some());
    html! {
        div.coat {
            @match &now.coat {
                Some(Coat { name, file }) => {
                    p.name {
                        span.directory { (String::from_utf8_lossy(site.sessions.as_os_str().as_bytes())) "/" }
                        (Ids::of(now).mark(name))
                    }
                    @match file {
                        Some(file) => (contents(file)),
                        None => p.hint { "There is no such file." },
                    }
                }
                None => p.hint { "No number, no file." },
            }
            @if let Some(moved) = moved { (old(moved)) }
        }
    }
}

fn contents(file: &File) -> Markup {
    html! {
        p.facts {
            span { "mode " (format!("{:04o}", file.mode)) }
            span { (file.size) " bytes" }
            span { "written " (file.age) " s ago" }
        }
        @match &file.text {
            Ok(lines) => pre.text { @for line in lines { code { b { (line.key) } "|" (line.value) } } },
            Err(why) => p.hint { "It cannot be read as a session now (" (why) ")." },
        }
        p.hint { "The file itself is one line; here each key has its own." }
    }
}

/// What became of the file of an id that was given up.
fn old(exchange: &Exchange) -> Markup {
    let Some(id) = &exchange.before else { return html! {} };
    html! {
        p.name.old {
            @if exchange.before_lives == Some(true) { "Still there: " } @else { "Gone: " }
            (Ids::of(exchange).mark(&format!("sess_{id}")))
        }
    }
}

/// The ids of an exchange, to be made out in whatever is shown.
struct Ids<'a> {
    before: Option<&'a str>,
    after: Option<&'a str>,
}

impl<'a> Ids<'a> {
    fn of(exchange: &'a Exchange) -> Ids<'a> {
        Ids { before: exchange.before.as_deref(), after: exchange.after.as_deref() }
    }

    /// The text with each id in it set off: the one in force, and the one that is dead.
    fn mark(&self, text: &str) -> Markup {
        let dead = self.before.filter(|_| self.before != self.after);
        let found = self.after.map(|id| (id, "id")).into_iter().chain(dead.map(|id| (id, "id dead")));
        for (id, class) in found {
            if let Some((front, back)) = text.split_once(id) {
                return html! { (front) b class=(class) { (id) } (back) };
            }
        }
        html! { (text) }
    }
}
