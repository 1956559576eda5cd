//! What the tests share: the recorded sessions, base64, printable bytes.

use cloakroom_php::Format;
use serde_json::Value as Json;

/// The lines of a file of recorded sessions.
pub(crate) fn lines(name: &str) -> Vec<Json> {
    let path = format!("{}/../../fixtures/formats/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

pub(crate) fn format(line: &Json) -> Format {
    Format::from_name(line["format"].as_str().expect("format")).expect("a format we know")
}

/// The bytes of a field, if the line has it.
pub(crate) fn bytes(line: &Json, field: &str) -> Option<Vec<u8>> {
    line.get(field).and_then(Json::as_str).map(base64)
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    let (mut bits, mut have) = (0_u32, 0);
    for byte in text.bytes().filter(|b| *b != b'=') {
        let digit = ALPHABET.iter().position(|a| *a == byte).expect("base64");
        bits = bits << 6 | u32::try_from(digit).expect("six bits");
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push(u8::try_from(bits >> have & 0xff).expect("eight bits"));
        }
    }
    out
}

/// Bytes as they can be printed.
pub(crate) fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
