//! A session as a tree that can be written as PHP writes it, and as JSON with the same values.
//!
//! The writer is independent of cloakroom's, so that a fault in the one is not hidden by the same fault in the other.

use std::collections::HashMap;
use std::fmt::Write as _;

use cloakroom_php::Format;
use serde_json::{Map, Number, Value};

/// A value of a session.
#[derive(Clone, Debug)]
pub enum Node {
    /// `null`
    Null,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `float`, one that PHP and Rust spell alike
    Float(f64),
    /// `string`
    Str(String),
    /// An array with the keys 0, 1, 2 …
    List(Vec<Node>),
    /// An array with string keys.
    Map(Vec<(&'static str, Node)>),
    /// An object of a class that nobody knows; its properties are private.
    Object(&'static str, Vec<(&'static str, Node)>),
    /// A value that others refer to.
    Named(&'static str, Box<Node>),
    /// The same object as a named one (`r:`).
    Handle(&'static str),
    /// The same variable as a named one (`R:`).
    Alias(&'static str),
}

/// Text.
pub fn text(text: impl Into<String>) -> Node {
    Node::Str(text.into())
}

/// A list of texts.
pub fn texts(texts: &[&str]) -> Node {
    Node::List(texts.iter().map(|one| text(*one)).collect())
}

/// The session in one of PHP's formats.
pub fn to_php(session: &[(&'static str, Node)], format: Format) -> String {
    let mut writer = Writer::default();
    if format == Format::PhpSerialize {
        writer.places = 1;
        let _ = write!(writer.out, "a:{}:{{", session.len());
    }
    for (key, value) in session {
        let out = &mut writer.out;
        let _ = match format {
            Format::PhpBinary => write!(out, "{}{key}", char::from(u8::try_from(key.len()).unwrap_or(127))),
            Format::PhpSerialize => write!(out, "s:{}:\"{key}\";", key.len()),
            _ => write!(out, "{key}|"),
        };
        writer.value(value);
    }
    if format == Format::PhpSerialize {
        writer.out.push('}');
    }
    writer.out
}

/// The session as a JSON object: objects as their properties, references as what they mean.
pub fn to_json(session: &[(&'static str, Node)]) -> Value {
    let mut names = HashMap::new();
    Value::Object(session.iter().map(|(key, value)| ((*key).to_owned(), json(value, &mut names))).collect())
}

#[derive(Default)]
struct Writer {
    out: String,
    places: usize,
    names: HashMap<&'static str, usize>,
}

impl Writer {
    fn value(&mut self, node: &Node) {
        if !matches!(node, Node::Named(..) | Node::Alias(_)) {
            self.places += 1;
        }
        let out = &mut self.out;
        let _ = match node {
            Node::Null => write!(out, "N;"),
            Node::Bool(value) => write!(out, "b:{};", u8::from(*value)),
            Node::Int(value) => write!(out, "i:{value};"),
            Node::Float(value) => write!(out, "d:{value};"),
            Node::Str(value) => write!(out, "s:{}:\"{value}\";", value.len()),
            Node::List(items) => {
                let _ = write!(out, "a:{}:{{", items.len());
                for (at, item) in items.iter().enumerate() {
                    let _ = write!(self.out, "i:{at};");
                    self.value(item);
                }
                write!(self.out, "}}")
            }
            Node::Map(items) => {
                let _ = write!(out, "a:{}:{{", items.len());
                for (key, item) in items {
                    let _ = write!(self.out, "s:{}:\"{key}\";", key.len());
                    self.value(item);
                }
                write!(self.out, "}}")
            }
            Node::Object(class, properties) => {
                let _ = write!(out, "O:{}:\"{class}\":{}:{{", class.len(), properties.len());
                for (name, item) in properties {
                    let _ = write!(self.out, "s:{}:\"\0{class}\0{name}\";", name.len() + class.len() + 2);
                    self.value(item);
                }
                write!(self.out, "}}")
            }
            Node::Named(name, value) => {
                self.names.insert(name, self.places + 1);
                self.value(value);
                Ok(())
            }
            Node::Handle(name) => write!(out, "r:{};", self.names[name]),
            Node::Alias(name) => write!(out, "R:{};", self.names[name]),
        };
    }
}

fn json(node: &Node, names: &mut HashMap<&'static str, Value>) -> Value {
    match node {
        Node::Null => Value::Null,
        Node::Bool(value) => Value::Bool(*value),
        Node::Int(value) => Value::from(*value),
        Node::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
        Node::Str(value) => Value::from(value.as_str()),
        Node::List(items) => Value::Array(items.iter().map(|item| json(item, names)).collect()),
        Node::Map(items) | Node::Object(_, items) => {
            let items = items.iter().map(|(key, item)| ((*key).to_owned(), json(item, names)));
            Value::Object(items.collect::<Map<_, _>>())
        }
        Node::Named(name, value) => {
            let value = json(value, names);
            names.insert(name, value.clone());
            value
        }
        Node::Handle(name) | Node::Alias(name) => names[name].clone(),
    }
}
