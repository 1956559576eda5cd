//! What the panel says: the steps in the life of a session, and for each thing that the shop can do, which verb did it,
//! in Rust and in PHP.

/// Who served a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    Php,
}

/// What a request did to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A visit without a mark.
    First,
    /// A visit with a mark that opens nothing.
    Stranger,
    Look,
    Pizza,
    Add,
    Take,
    Login,
    Logout,
    Bye,
}

/// A step in the life of a session.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

/// The life of a session; a step is known by its place here, counted from 1.
pub(crate) const LIFE: [Step; 7] = [
    Step { name: "No mark", text: "The browser comes without a valid mark." },
    Step { name: "Marked", text: "It gets a large random number in hex, as a cookie." },
    Step { name: "Pulled in", text: "It shows the number, and the data under it are pulled in." },
    Step { name: "Changed", text: "The shop changes the data." },
    Step { name: "Put back", text: "They are put back before the reply leaves." },
    Step { name: "Login", text: "The data get a new number; the old one is dead." },
    Step { name: "Destroyed", text: "The data are gone, and the cookie is removed." },
];

/// What was called, and what that did.
pub(crate) struct Deed {
    pub(crate) code: &'static str,
    pub(crate) text: &'static str,
}

impl Act {
    /// The word by which PHP's page says what it did, in the header `X-Demo-Act`.
    pub(crate) fn from_word(word: &str) -> Option<Act> {
        Some(match word {
            "first" => Act::First,
            "stranger" => Act::Stranger,
            "look" => Act::Look,
            "pizza" => Act::Pizza,
            "add" => Act::Add,
            "take" => Act::Take,
            "login" => Act::Login,
            "logout" => Act::Logout,
            "bye" => Act::Bye,
            _ => return None,
        })
    }

    /// What happened, as a headline.
    pub(crate) fn headline(self) -> &'static str {
        match self {
            Act::First => "A browser without a mark got one",
            Act::Stranger => "A mark that opens nothing was replaced",
            Act::Look => "The session was looked at",
            Act::Pizza => "The pizza counter grew",
            Act::Add => "The cart got something",
            Act::Take => "The cart lost something",
            Act::Login => "Logged in: new number, same session",
            Act::Logout => "Logged out: the session is gone",
            Act::Bye => "Nothing: there is no session any more",
        }
    }

    /// Which steps this was; the one that matters most comes first.
    pub(crate) fn steps(self, marked: bool) -> &'static [usize] {
        match (self, marked) {
            (Act::First | Act::Stranger, _) | (Act::Pizza | Act::Add | Act::Take, true) => &[2, 1, 4, 5],
            (Act::Look, _) => &[3],
            (Act::Pizza | Act::Add | Act::Take, false) => &[4, 3, 5],
            (Act::Login, _) => &[6, 3, 4, 5],
            (Act::Logout, _) => &[7],
            (Act::Bye, _) => &[1],
        }
    }

    pub(crate) fn deed(self, language: Language) -> Deed {
        let (code, text) = match language {
            Language::Rust => self.in_rust(),
            Language::Php => self.in_php(),
        };
        Deed { code, text }
    }

    fn in_rust(self) -> (&'static str, &'static str) {
        match self {
            Act::First => (
                "let mut s = session.start().await?;",
                "start() found no mark, drew a new number and marked the browser. Dropped at the end of the handler, the \
                 session was put back before the reply left.",
            ),
            Act::Stranger => (
                "let mut s = session.start().await?;",
                "start() knows no session of that number: it was destroyed, it expired, or somebody made it up. A foreign \
                 number is never adopted (strict mode), so the browser got a new one.",
            ),
            Act::Look => (
                "let s = session.read().await?;",
                "read() pulled the data in as a snapshot: it waits for nobody, marks nobody and writes nothing.",
            ),
            Act::Pizza => (
                "session.update(|s| s.set(\"pizza\", &(pizza(s)? + 1))).await?;",
                "update() changed one key in one atomic step. Two tabs that click at once both count.",
            ),
            Act::Add | Act::Take => (
                "session.update(|s| s.set(\"cart\", &cart)).await?;",
                "update() changed the cart in one atomic step; the bytes of all other keys stayed as they were.",
            ),
            Act::Login => (
                "s.regenerate_id(true).await?;  s.set(\"user\", &name)?;",
                "start() took the lock, regenerate_id(true) moved the session to a new number and killed the old one: \
                 whoever had learned or planted it holds nothing now. Only then was the name written.",
            ),
            Act::Logout => (
                "session.destroy().await?;",
                "destroy() removed the session for everybody who holds its number, and the cookie from this browser.",
            ),
            Act::Bye => (
                "async fn bye() -> Reply",
                "This page does not ask for its session, so nobody is marked and no store is asked.",
            ),
        }
    }

    fn in_php(self) -> (&'static str, &'static str) {
        match self {
            Act::First => (
                "session_start();",
                "session_start() found no mark, drew a new number and marked the browser. When the page ended, the session \
                 was put back.",
            ),
            Act::Stranger => (
                "session_start();",
                "session_start() knows no session of that number. With session.use_strict_mode it does not adopt it, and the \
                 browser got a new one.",
            ),
            Act::Look => (
                "session_start();",
                "session_start() took the lock and pulled the data into $_SESSION. Nothing changed, so lazy_write only \
                 touched the file.",
            ),
            Act::Pizza => (
                "$_SESSION['pizza']++;",
                "session_start() took the lock and pulled the data in; the page changed them; its end put them back.",
            ),
            Act::Add | Act::Take => (
                "$_SESSION['cart'] = $cart;",
                "session_start() took the lock and pulled the data in; the page changed the cart; its end put it back.",
            ),
            Act::Login => (
                "session_regenerate_id(true);  $_SESSION['user'] = $name;",
                "session_regenerate_id(true) moved the session to a new number and killed the old one. Only then was the \
                 name written.",
            ),
            Act::Logout => (
                "session_destroy();  setcookie(session_name(), '', …);",
                "session_destroy() removed the file. PHP leaves the cookie alone, so the page removed that itself.",
            ),
            Act::Bye => ("// no session_start()", "This page starts no session, so nobody is marked."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_steps_of_a_life() {
        let acts = ["first", "stranger", "look", "pizza", "add", "take", "login", "logout", "bye"];
        for act in acts.map(|word| Act::from_word(word).unwrap()) {
            for marked in [false, true] {
                assert!(act.steps(marked).iter().all(|step| (1..=LIFE.len()).contains(step)), "{act:?}");
            }
        }
    }
}
