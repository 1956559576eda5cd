//! One cart under two languages. Without PHP these tests fail and name it, unless `CLOAKROOM_SKIP` names it first.

use crate::browser::Browser;
use crate::program::Program;

#[test]
fn one_cart_lives_under_both_languages() {
    let Some(demo) = Program::with_php() else { return };
    let mut browser = demo.browser();
    browser.get("/");
    browser.send("/cart/add", &[("name", "Funghi")]);
    browser.send("/pizza", &[]);
    browser.send("/login", &[("name", "Ada")]);
    let id = browser.mark().to_owned();

    let page = browser.get("/php/");
    assert!(page.panel().contains("in PHP ") && page.main().contains("Served by PHP"), "{}", page.panel());
    assert!(page.main().contains("Welcome, Ada"));
    assert_eq!((page.cart(), page.pizzas()), ([("Funghi".into(), 1)].into(), 1));
    assert_eq!(page.header("set-cookie"), None);
    browser.send("/php/cart/add", &[("name", "Diavola")]);
    browser.send("/php/cart/add", &[("name", "Funghi")]);
    let page = browser.send("/php/pizza", &[]);
    assert_eq!((page.pizzas(), page.step()), (2, "Changed"));
    let panel = page.panel();
    assert!(panel.contains("POST /php/pizza HTTP/1.1") && panel.contains("$_SESSION['pizza']++;"), "{panel}");

    let page = browser.get("/");
    assert_eq!((page.cart(), page.pizzas()), ([("Funghi".into(), 2), ("Diavola".into(), 1)].into(), 2));
    assert_eq!(browser.send("/cart/take", &[("name", "Diavola")]).cart(), [("Funghi".into(), 2)].into());
    assert_eq!(browser.get("/php/").cart(), [("Funghi".into(), 2)].into());
    assert_eq!(browser.send("/php/cart/take", &[("name", "Funghi")]).cart(), [("Funghi".into(), 1)].into());
    assert_eq!(browser.mark(), id, "all in one session");
}

#[test]
fn the_same_clicks_leave_the_same_bytes() {
    let Some(demo) = Program::with_php() else { return };
    let texts = ["", "/php"].map(|prefix| {
        let mut browser = demo.browser();
        browser.get(&format!("{prefix}/"));
        for name in ["Funghi", "Diavola", "Funghi", "Tiramisu"] {
            browser.send(&format!("{prefix}/cart/add"), &[("name", name)]);
        }
        browser.send(&format!("{prefix}/pizza"), &[]);
        browser.send(&format!("{prefix}/cart/take"), &[("name", "Diavola")]);
        browser.send(&format!("{prefix}/login"), &[("name", "  Zo\u{eb} \u{1f355}")]);
        demo.text(browser.mark())
    });
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn php_begins_and_ends_sessions_as_rust_does() {
    let Some(demo) = Program::with_php() else { return };
    let mut browser = demo.browser();
    let page = browser.get("/php/");
    let first = browser.mark().to_owned();
    assert_eq!(page.header("set-cookie"), Some(&*format!("PHPSESSID={first}; path=/; HttpOnly; SameSite=Lax")));
    assert_eq!((page.step(), first.len()), ("Marked", 32));

    let page = browser.send("/php/login", &[("name", "<script>x</script>")]);
    assert_eq!(page.step(), "Login");
    assert!(!page.body.contains("<script") && page.main().contains("Welcome, &lt;script&gt;x"));
    let second = browser.mark().to_owned();
    assert!(second != first && !demo.file(&first).exists());
    assert!(browser.get("/").main().contains("Welcome, &lt;script&gt;x"), "Rust knows who that is");

    // An id that died in PHP opens nothing in Rust, and the reverse.
    let mut thief = Browser::with_mark(demo.address, &first);
    thief.get("/");
    assert_ne!(thief.mark(), first);

    let page = browser.send("/php/logout", &[]);
    assert_eq!((browser.mark.as_deref(), page.step()), (None, "Destroyed"));
    assert!(!demo.file(&second).exists());
    let mut thief = Browser::with_mark(demo.address, &second);
    let page = thief.get("/php/");
    assert_ne!(thief.mark(), second);
    assert_eq!(page.step(), "Marked");
}

#[test]
fn php_serves_nobody_but_the_demo() {
    let Some(demo) = Program::with_php() else { return };
    let mut browser = demo.browser();
    browser.get("/php/");
    assert_eq!(browser.post("/php/pizza", &[], &[("Sec-Fetch-Site", "cross-site")]).status, 403);
    for path in ["/php/shop.php", "/php/menu.csv", "/php/../index.php"] {
        assert_eq!(browser.get(path).status, 404, "{path}");
    }
    let port = listening(demo.children()[0]);
    let mut direct = Browser::new(([127, 0, 0, 1], port).into());
    for path in ["/php/", "/index.php", "/menu.csv"] {
        assert_eq!(direct.get(path).status, 403, "{path}");
    }
}

/// The port that `php -S` was told, from its command line.
fn listening(pid: u32) -> u16 {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("PHP runs");
    let address = line.split('\0').skip_while(|word| *word != "-S").nth(1).and_then(|address| address.parse().ok());
    let address: std::net::SocketAddr = address.expect("PHP was told where to listen");
    address.port()
}
