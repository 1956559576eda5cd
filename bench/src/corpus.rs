//! The sessions that are measured, made anew on every run and always the same.

use cloakroom_php::Format;

use crate::Result;
use crate::node::{Node, text, texts, to_json, to_php};

/// One session in all its spellings.
#[derive(Debug)]
pub struct Corpus {
    /// What the tables call it.
    pub name: &'static str,
    /// Which of the shapes it has.
    pub kind: Kind,
    /// Format `php`.
    pub php: Vec<u8>,
    /// Format `php_binary`.
    pub php_binary: Vec<u8>,
    /// Format `php_serialize`.
    pub php_serialize: Vec<u8>,
    /// JSON with the same values.
    pub json: Vec<u8>,
}

/// The type that a session is decoded to; see [`shapes`](crate::shapes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Login`](crate::shapes::Login)
    Login,
    /// [`Shopper`](crate::shapes::Shopper)
    Shopper,
    /// [`Framework`](crate::shapes::Framework)
    Framework,
    /// [`Dense`](crate::shapes::Dense)
    Dense,
    /// [`Texts`](crate::shapes::Texts)
    Texts,
}

impl Corpus {
    /// All of them, small ones first.
    pub fn all() -> Result<Vec<Corpus>> {
        Ok(vec![
            Corpus::new("login, 400 B", Kind::Login, &login())?,
            Corpus::new("cart, 4 KB", Kind::Shopper, &shopper())?,
            Corpus::new("framework, 20 KB", Kind::Framework, &framework())?,
            Corpus::new("1 MB, small values", Kind::Dense, &dense())?,
            Corpus::new("1 MB, long texts", Kind::Texts, &long_texts())?,
        ])
    }

    fn new(name: &'static str, kind: Kind, session: &[(&'static str, Node)]) -> Result<Corpus> {
        Ok(Corpus {
            name,
            kind,
            php: to_php(session, Format::Php).into(),
            php_binary: to_php(session, Format::PhpBinary).into(),
            php_serialize: to_php(session, Format::PhpSerialize).into(),
            json: serde_json::to_vec(&to_json(session))?,
        })
    }

    /// The session in this format.
    pub fn bytes(&self, format: Format) -> &[u8] {
        match format {
            Format::PhpBinary => &self.php_binary,
            Format::PhpSerialize => &self.php_serialize,
            _ => &self.php,
        }
    }
}

/// splitmix64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end as u64)).unwrap_or(0)
    }

    fn int(&mut self, from: i64, to: i64) -> i64 {
        from + i64::try_from(self.next() % from.abs_diff(to).max(1)).unwrap_or(0)
    }

    /// Cents; every such number is spelled alike by PHP and Rust.
    fn price(&mut self) -> f64 {
        f64::from(u32::try_from(self.below(100_000)).unwrap_or(0)) / 100.0 + 0.5
    }

    fn hex(&mut self, length: usize) -> String {
        (0..length).filter_map(|_| char::from_digit(u32::try_from(self.below(16)).unwrap_or(0), 16)).collect()
    }

    fn words(&mut self, count: usize) -> String {
        const WORDS: [&str; 16] = [
            "wool", "coat", "grey", "lining", "Loden", "button", "café", "sleeve", "pocket", "of", "the", "with",
            "two", "linen", "scarf", "winter",
        ];
        let words: Vec<_> = (0..count).map(|_| WORDS[self.below(WORDS.len())]).collect();
        words.join(" ")
    }
}

type Session = Vec<(&'static str, Node)>;

fn login() -> Session {
    let mut random = Random(1);
    vec![
        ("user_id", Node::Int(48_151)),
        ("user", text("ada.lovelace")),
        ("email", text("ada.lovelace@example.org")),
        ("roles", texts(&["ROLE_USER", "ROLE_EDITOR"])),
        ("csrf_token", text(random.hex(40))),
        ("remember", Node::Bool(true)),
        ("logged_in_at", Node::Int(1_764_000_000)),
        ("locale", text("en_GB")),
        ("address", text("2001:db8::42")),
        ("n", Node::Int(7)),
    ]
}

fn customer(random: &mut Random) -> Node {
    Node::Map(vec![
        ("id", Node::Int(random.int(10_000, 99_999))),
        ("name", text("Zoë Müller")),
        ("email", text("zoe.mueller@example.org")),
        ("newsletter", Node::Bool(false)),
    ])
}

fn line(random: &mut Random) -> Node {
    let gift = if random.below(4) == 0 { text("happy birthday") } else { Node::Null };
    Node::Map(vec![
        ("sku", Node::Int(random.int(100_000, 999_999))),
        ("title", text(random.words(4))),
        ("price", Node::Float(random.price())),
        ("quantity", Node::Int(random.int(1, 9))),
        ("options", Node::Map(vec![("color", text(random.words(1))), ("size", text("XL"))])),
        ("gift", gift),
    ])
}

fn visit(random: &mut Random) -> Node {
    Node::Map(vec![
        ("url", text(format!("/shop/{}/{}", random.hex(6), random.below(1000)))),
        ("method", text(if random.below(5) == 0 { "POST" } else { "GET" })),
        ("at", Node::Float(1_764_000_000.0 + random.price())),
        ("status", Node::Int(200)),
    ])
}

fn shopper() -> Session {
    let mut random = Random(2);
    vec![
        ("user", customer(&mut random)),
        ("cart", Node::List((0..19).map(|_| line(&mut random)).collect())),
        ("coupon", Node::Null),
        ("total", Node::Float(1234.5)),
        ("csrf_token", text(random.hex(40))),
        ("flash", texts(&["Added to your cart."])),
        ("n", Node::Int(7)),
    ]
}

fn framework() -> Session {
    let mut random = Random(3);
    let user = Node::Object(
        "App\\Entity\\User",
        vec![
            ("id", Node::Int(48_151)),
            ("email", text("ada.lovelace@example.org")),
            ("password", text(format!("$2y$13${}", random.hex(53)))),
            ("roles", texts(&["ROLE_USER", "ROLE_EDITOR"])),
            ("enabled", Node::Bool(true)),
            ("profile", Node::Null),
        ],
    );
    let token = Node::Object(
        "Symfony\\Component\\Security\\Http\\Authenticator\\Token\\PostAuthenticationToken",
        vec![
            ("user", Node::Named("user", user.into())),
            ("firewall", text("main")),
            ("roles", texts(&["ROLE_USER", "ROLE_EDITOR"])),
            ("attributes", Node::List(Vec::new())),
        ],
    );
    let lines = (0..25).map(|at| {
        let currency = if at == 0 {
            let euro = Node::Object("Money\\Currency", vec![("code", text("EUR"))]);
            Node::Named("euro", euro.into())
        } else {
            Node::Handle("euro")
        };
        let product = Node::Object(
            "App\\Entity\\Product",
            vec![
                ("id", Node::Int(random.int(100_000, 999_999))),
                ("title", text(random.words(4))),
                ("slug", text(random.words(3).replace(' ', "-"))),
                ("tax", Node::Float(0.25)),
            ],
        );
        let amount = text(random.int(100, 99_999).to_string());
        let price = Node::Object("Money\\Money", vec![("amount", amount), ("currency", currency)]);
        let quantity = Node::Int(random.int(1, 9));
        Node::Object("App\\Shop\\BasketLine", vec![("product", product), ("quantity", quantity), ("price", price)])
    });
    let lines = Node::List(lines.collect());
    let basket = vec![("lines", lines), ("owner", Node::Handle("user")), ("coupon", Node::Null)];
    let mut history: Vec<_> = (0..69).map(|_| visit(&mut random)).collect();
    history.push(Node::Named("last", visit(&mut random).into()));
    let attributes = vec![
        ("csrf_checkout", text(random.hex(43))),
        ("csrf_account", text(random.hex(43))),
        ("token", token),
        ("basket", Node::Object("App\\Shop\\Basket", basket)),
        ("history", Node::List(history)),
        ("last", Node::Alias("last")),
    ];
    let meta =
        vec![("created", Node::Int(1_764_000_000)), ("updated", Node::Int(1_764_000_360)), ("lifetime", Node::Int(0))];
    vec![
        ("attributes", Node::Map(attributes)),
        ("meta", Node::Map(meta)),
        ("flashes", Node::List(Vec::new())),
        ("n", Node::Int(7)),
    ]
}

fn dense() -> Session {
    let mut random = Random(4);
    vec![
        ("user", customer(&mut random)),
        ("cart", Node::List((0..2600).map(|_| line(&mut random)).collect())),
        ("seen", Node::List((0..4300).map(|_| visit(&mut random)).collect())),
        ("n", Node::Int(7)),
    ]
}

fn long_texts() -> Session {
    let mut random = Random(5);
    let page = |random: &mut Random| {
        let url = text(format!("/shop/{}", random.hex(6)));
        let words = 300 + random.below(1200);
        Node::Map(vec![("url", url), ("etag", text(random.hex(32))), ("body", text(random.words(words)))])
    };
    vec![
        ("user", customer(&mut random)),
        ("pages", Node::List((0..215).map(|_| page(&mut random)).collect())),
        ("n", Node::Int(7)),
    ]
}
