//! The command line.

use std::path::PathBuf;

pub(crate) const HELP: &str = "\
A pizza shop that shows the life of a session.

Usage: cloakroom-demo [options]

  --listen ADDRESS   where to listen (default 127.0.0.1:8080)
  --sessions DIR     where the session files lie (default: a private directory
                     below the system's directory for temporary files)
  --no-php           leave PHP alone even if it is installed
  --help             show this text
";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Wish {
    Serve(Arguments),
    Help,
}

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) listen: String,
    pub(crate) sessions: Option<PathBuf>,
    pub(crate) php: bool,
}

impl Arguments {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Wish, String> {
        let mut arguments = Arguments { listen: "127.0.0.1:8080".into(), sessions: None, php: true };
        let mut words = words;
        while let Some(word) = words.next() {
            let (option, attached) = match word.split_once('=') {
                Some((option, value)) => (option, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let mut value =
                || attached.clone().or_else(|| words.next()).ok_or_else(|| format!("{option} needs a value"));
            match option {
                "--listen" => arguments.listen = value()?,
                "--sessions" => arguments.sessions = Some(value()?.into()),
                "--no-php" => arguments.php = false,
                "--help" | "-h" => return Ok(Wish::Help),
                _ => return Err(format!("unknown option {word}")),
            }
        }
        Ok(Wish::Serve(arguments))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Wish, String> {
        Arguments::parse(words.iter().map(ToString::to_string))
    }

    #[test]
    fn takes_values_attached_or_apart() {
        for words in [&["--listen", "[::1]:9", "--sessions=/s"], &["--listen=[::1]:9", "--sessions", "/s"][..]] {
            let Ok(Wish::Serve(arguments)) = parse(words) else { panic!("{words:?}") };
            assert_eq!((arguments.listen.as_str(), arguments.php), ("[::1]:9", true));
            assert_eq!(arguments.sessions, Some(PathBuf::from("/s")));
        }
    }

    #[test]
    fn says_what_it_does_not_understand() {
        assert_eq!(parse(&["--prot"]).unwrap_err(), "unknown option --prot");
        assert_eq!(parse(&["--listen"]).unwrap_err(), "--listen needs a value");
    }
}
