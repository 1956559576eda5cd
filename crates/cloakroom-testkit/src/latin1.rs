//! Bytes as text, one character per byte: how any byte travels in JSON, in scenarios and in transcripts.

/// The bytes, one character (U+0000 to U+00FF) each.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// The bytes that `text` stands for. A character above U+00FF stands for its UTF-8 bytes.
pub fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for c in text.chars() {
        match u8::try_from(c) {
            Ok(byte) => out.push(byte),
            Err(_) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_byte_survives() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(super::bytes(&super::text(&all)), all);
    }
}
