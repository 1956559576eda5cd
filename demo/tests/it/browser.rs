//! A browser, as far as the demo needs one: it keeps its cookie, follows redirects, and sends forms.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) struct Browser {
    address: SocketAddr,
    /// `PHPSESSID`
    pub(crate) mark: Option<String>,
}

pub(crate) struct Page {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Browser {
    pub(crate) fn new(address: SocketAddr) -> Browser {
        Browser { address, mark: None }
    }

    pub(crate) fn with_mark(address: SocketAddr, mark: &str) -> Browser {
        Browser { address, mark: Some(mark.into()) }
    }

    pub(crate) fn mark(&self) -> &str {
        self.mark.as_deref().expect("the browser has a mark")
    }

    pub(crate) fn get(&mut self, path: &str) -> Page {
        self.ask("GET", path, "", &[])
    }

    /// Sends a form and shows the page that it leads to.
    pub(crate) fn send(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let answer = self.post(path, fields, &[("Sec-Fetch-Site", "same-origin")]);
        assert_eq!(answer.status, 303, "{path}: {}", answer.body);
        let to = answer.header("location").expect("a redirect says where to").to_owned();
        self.get(&to)
    }

    pub(crate) fn post(&mut self, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Page {
        let fields = fields.iter().map(|(name, value)| format!("{name}={}", encode(value)));
        let body = fields.collect::<Vec<_>>().join("&");
        self.ask("POST", path, &body, headers)
    }

    fn ask(&mut self, method: &str, path: &str, body: &str, headers: &[(&str, &str)]) -> Page {
        let mut lines = vec![format!("{method} {path} HTTP/1.1"), format!("Host: {}", self.address)];
        lines.push("Connection: close".into());
        lines.extend(self.mark.iter().map(|mark| format!("Cookie: PHPSESSID={mark}")));
        lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
        if method == "POST" {
            lines.push("Content-Type: application/x-www-form-urlencoded".into());
            lines.push(format!("Content-Length: {}", body.len()));
        }
        let mut stream = TcpStream::connect(self.address).expect("the demo listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
        stream
            .write_all(format!("{}\r\n\r\n{body}", lines.join("\r\n")).as_bytes())
            .expect("the demo takes the request");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the demo answers");
        let page = Page::parse(&String::from_utf8(bytes).expect("the answer is UTF-8"));
        self.keep_cookie(&page);
        page
    }

    fn keep_cookie(&mut self, page: &Page) {
        for line in page.all("set-cookie") {
            let Some(value) = line.strip_prefix("PHPSESSID=") else { continue };
            let value = value.split(';').next().unwrap_or_default();
            self.mark = (!line.contains("Max-Age=0")).then(|| value.to_owned());
        }
    }
}

impl Page {
    fn parse(text: &str) -> Page {
        let (head, body) = text.split_once("\r\n\r\n").expect("a response has a head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|word| word.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        Page {
            status: status.expect("a response has a status"),
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// What stands between two texts, the first time.
    pub(crate) fn between(&self, from: &str, to: &str) -> &str {
        let rest = self.body.split_once(from).unwrap_or_else(|| panic!("no {from} in:\n{}", self.main())).1;
        rest.split_once(to).unwrap_or_else(|| panic!("no {to} behind {from}")).0
    }

    pub(crate) fn pizzas(&self) -> u32 {
        self.between("<output id=\"pizza\">", "</output>").parse().expect("the counter is a number")
    }

    /// The cart: what is in it, and how often.
    pub(crate) fn cart(&self) -> HashMap<String, u32> {
        let lines = self.main().split("<b class=\"qty\">").skip(1);
        let line = |line: &str| {
            let (qty, rest) = line.split_once(" \u{d7}</b> ").expect("a line of the cart");
            (rest.split('<').next().unwrap_or_default().to_owned(), qty.parse().expect("a number"))
        };
        lines.map(line).collect()
    }

    /// The shop's half of the page.
    pub(crate) fn main(&self) -> &str {
        self.body
            .split_once("<main>")
            .and_then(|(_, rest)| rest.split_once("</main>"))
            .map_or(&self.body, |(main, _)| main)
    }

    /// The panel beside it, as one reads it.
    pub(crate) fn panel(&self) -> String {
        let html = self.body.split_once("<aside").expect("a panel").1;
        let text = html.split('<').map(|piece| piece.split_once('>').map_or(piece, |(_, text)| text));
        text.collect::<Vec<_>>()
            .concat()
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&amp;", "&")
    }

    /// The step of a session's life that is highlighted.
    pub(crate) fn step(&self) -> &str {
        let step = self.between("aria-current=\"step\"><b>", "</b>");
        assert_eq!(self.body.matches("aria-current=\"step\"").count(), 1, "one step is the current one");
        step
    }
}

fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
