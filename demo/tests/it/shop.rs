//! The story of the shop in Rust.

use std::os::unix::fs::PermissionsExt;

use crate::browser::Browser;
use crate::program::Program;

#[test]
fn the_first_visit_marks_the_browser() {
    let demo = Program::start();
    let mut browser = demo.browser();
    let page = browser.get("/");
    let line = page.header("set-cookie").unwrap();
    let id = browser.mark();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert_eq!(line, format!("PHPSESSID={id}; path=/; HttpOnly; SameSite=Lax"));
    assert_eq!(demo.text(id), "pizza|i:0;cart|a:0:{}");
    assert_eq!(page.step(), "Marked");
    let panel = page.panel();
    for text in [
        line,
        &format!("sess_{id}"),
        "GET / HTTP/1.1",
        "none: the browser has no mark",
        "mode 0600",
        "21 bytes",
        "pizza|i:0;",
    ] {
        assert!(panel.contains(text), "no {text} in {panel}");
    }

    let again = browser.get("/");
    assert_eq!(again.header("set-cookie"), None);
    assert_eq!(again.step(), "Pulled in");
    assert!(again.panel().contains("none: the browser already has its mark"));
}

#[test]
fn the_pizza_counter_grows_and_a_reload_does_not_count() {
    let demo = Program::start();
    let mut browser = demo.browser();
    assert_eq!(browser.get("/").pizzas(), 0);
    for pizzas in 1..=3 {
        let page = browser.send("/pizza", &[]);
        assert_eq!((page.pizzas(), page.step()), (pizzas, "Changed"));
        let panel = page.panel();
        assert!(panel.contains("POST /pizza HTTP/1.1") && panel.contains(&format!("pizza|i:{pizzas};")), "{panel}");
    }
    let to = browser.post("/pizza", &[], &[]).header("location").unwrap().to_owned();
    for _reload in 0..2 {
        let page = browser.get(&to);
        assert_eq!((page.pizzas(), page.step()), (4, "Changed"));
    }
    assert_eq!(browser.get("/").step(), "Pulled in");
}

#[test]
fn the_cart_fills_and_empties() {
    let demo = Program::start();
    let mut browser = demo.browser();
    browser.get("/");
    browser.send("/cart/add", &[("name", "Funghi")]);
    browser.send("/cart/add", &[("name", "Diavola")]);
    let page = browser.send("/cart/add", &[("name", "Funghi")]);
    assert_eq!(page.cart(), [("Funghi".into(), 2), ("Diavola".into(), 1)].into());
    assert!(page.main().contains("27.30 \u{20ac}"));
    let cart = r#"cart|a:2:{i:0;a:3:{s:4:"name";s:6:"Funghi";s:5:"price";i:890;s:3:"qty";i:2;}i:1;a:3:{s:4:"name";s:7:"Diavola";s:5:"price";i:950;s:3:"qty";i:1;}}"#;
    assert_eq!(demo.text(browser.mark()), format!("pizza|i:0;{cart}"));
    assert!(page.panel().contains(cart));

    assert_eq!(browser.send("/cart/take", &[("name", "Diavola")]).cart(), [("Funghi".into(), 2)].into());
    assert_eq!(browser.post("/cart/add", &[("name", "Calzone")], &[]).status, 422);
}

#[test]
fn login_gives_a_new_id_and_the_old_one_is_dead() {
    let demo = Program::start();
    let mut browser = demo.browser();
    browser.get("/");
    browser.send("/pizza", &[]);
    let old = browser.mark().to_owned();
    let page = browser.send("/login", &[("name", "Ada")]);
    let new = browser.mark().to_owned();
    assert_ne!(new, old);
    assert_eq!((page.pizzas(), page.step()), (1, "Login"));
    assert!(page.main().contains("Welcome, Ada"));
    assert!(page.panel().contains(&format!("Gone: sess_{old}")));
    assert!(!demo.file(&old).exists());
    assert_eq!(demo.text(&new), r#"pizza|i:1;cart|a:0:{}user|s:3:"Ada";"#);

    let mut thief = Browser::with_mark(demo.address, &old);
    let page = thief.get("/");
    assert!(thief.mark() != old && thief.mark() != new, "a dead id is replaced");
    assert!(!page.main().contains("Ada") && page.pizzas() == 0);
    assert_eq!(page.step(), "Marked");
}

#[test]
fn logout_destroys_the_session_and_clears_the_cookie() {
    let demo = Program::start();
    let mut browser = demo.browser();
    browser.get("/");
    browser.send("/login", &[("name", "Ada")]);
    let id = browser.mark().to_owned();
    let page = browser.send("/logout", &[]);
    assert_eq!(browser.mark, None);
    assert!(!demo.file(&id).exists());
    assert_eq!(std::fs::read_dir(demo.sessions()).unwrap().count(), 0, "nothing is left, and nobody was marked anew");
    assert_eq!(page.step(), "Destroyed");
    let panel = page.panel();
    let removal = "PHPSESSID=deleted; expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0; path=/; HttpOnly; SameSite=Lax";
    assert!(panel.contains(removal) && panel.contains(&format!("Gone: sess_{id}")), "{panel}");

    let page = browser.get("/");
    assert_eq!((page.pizzas(), page.step()), (0, "Marked"));
}

#[test]
fn what_comes_from_outside_is_shown_as_text() {
    let demo = Program::start();
    let mut browser = demo.browser();
    browser.get("/");
    let page = browser.send("/login", &[("name", "<script>alert('1')</script>\"&")]);
    assert!(!page.body.contains("<script"));
    assert!(page.main().contains("Welcome, &lt;script&gt;alert('1')&lt;/script&gt;&quot;&amp;"));
    assert!(page.panel().contains("<script>alert('1')</script>"), "the file's text shows it too");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'nonce-") && !policy.contains("unsafe"), "{policy}");

    let page = browser.get("/?after=%3Cscript%3Ealert(1)%3C/script%3E");
    assert!(!page.body.contains("<script"));
    assert_eq!(page.header("cache-control"), Some("no-store"));
}

#[test]
fn two_browsers_do_not_mix() {
    let demo = Program::start();
    let (mut one, mut other) = (demo.browser(), demo.browser());
    one.get("/");
    other.get("/");
    one.send("/login", &[("name", "Ada")]);
    other.send("/login", &[("name", "Grace")]);
    one.send("/pizza", &[]);
    let (one_page, other_page) = (one.get("/"), other.get("/"));
    assert_eq!((one_page.pizzas(), other_page.pizzas()), (1, 0));
    assert!(!one_page.body.contains("Grace") && !one_page.body.contains(other.mark()));
    assert!(!other_page.body.contains("Ada") && !other_page.body.contains(one.mark()));
}

#[test]
fn forms_of_other_sites_change_nothing() {
    let demo = Program::start();
    let mut browser = demo.browser();
    browser.get("/");
    for headers in [[("Sec-Fetch-Site", "cross-site")], [("Origin", "http://elsewhere.example")], [("Origin", "null")]]
    {
        assert_eq!(browser.post("/pizza", &[], &headers).status, 403, "{headers:?}");
    }
    assert_eq!(browser.get("/").pizzas(), 0);
}

#[test]
fn other_pages_mark_nobody_and_ids_lead_nowhere_else() {
    let demo = Program::start();
    let mut browser = demo.browser();
    for path in ["/favicon.ico", "/bye", "/php/", "/php/bye"] {
        let page = browser.get(path);
        assert_eq!(page.header("set-cookie"), None, "{path}");
    }
    for mark in ["../../etc/passwd", "x", "0123456789abcdef0123456789abcdef"] {
        let mut browser = Browser::with_mark(demo.address, mark);
        let page = browser.get("/");
        assert_ne!(browser.mark(), mark);
        assert_eq!(page.step(), "Marked");
    }
}

#[test]
fn its_directories_are_private() {
    let demo = Program::start();
    let below = std::fs::read_dir(demo.temporary()).unwrap().flatten();
    let modes: Vec<_> = below.map(|entry| entry.metadata().unwrap().permissions().mode() & 0o777).collect();
    assert_eq!(modes, [0o700, 0o700], "the demo's own, and that of the sessions");
}
