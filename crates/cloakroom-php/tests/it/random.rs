//! Random values from a seed that is printed, so that a failure can be had again.

use cloakroom_php::{Array, Custom, Enum, Object, Value};

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).expect("small")).expect("small")
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn text(&mut self) -> Vec<u8> {
        match self.below(8) {
            0 => Vec::new(),
            1 => b"a|i:1;".to_vec(),
            2 => "gr\u{fc}\u{df}e \u{1f600}".into(),
            3 => (0..self.below(20)).map(|_| self.next().to_le_bytes()[0]).collect(),
            4 => self.below(200).to_string().into_bytes(),
            5 => vec![b'x'; self.below(200)],
            _ => b"lorem ipsum dolor sit amet"[..self.below(27)].to_vec(),
        }
    }

    pub(crate) fn float(&mut self) -> f64 {
        match self.below(6) {
            0 => 0.0,
            1 => -0.0,
            2 => f64::INFINITY,
            3 => f64::from(i32::try_from(self.below(100_000)).expect("small")) / 100.0,
            _ => {
                let value = f64::from_bits(self.next());
                // NAN is read back, but is equal to nothing.
                if value.is_nan() { 0.5 } else { value }
            }
        }
    }

    pub(crate) fn array(&mut self, depth: usize) -> Array {
        let list = self.one_in(2);
        let mut array = Array::new();
        for _ in 0..self.below(6) {
            let value = self.value(depth);
            if list {
                array.push(value);
            } else if self.one_in(3) {
                array.insert(i64::from_le_bytes(self.next().to_le_bytes()) >> self.below(64), value);
            } else {
                array.insert(self.text(), value);
            }
        }
        array
    }

    pub(crate) fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth > 0 { 13 } else { 9 }) {
            0 => Value::Null,
            1 => Value::Bool(self.one_in(2)),
            2 | 3 => Value::Int(i64::from_le_bytes(self.next().to_le_bytes()) >> self.below(64)),
            4 => Value::Float(self.float()),
            5..=7 => Value::String(self.text().into()),
            8 if self.one_in(2) => Value::Enum(Box::new(Enum { class: "Suit".into(), case: "Spades".into() })),
            8 => Value::Custom(Box::new(Custom { class: "OldStyle".into(), payload: self.text().into() })),
            9..=11 => Value::Array(self.array(depth - 1)),
            _ => {
                let class = ["stdClass", "App\\Unknown", "\u{c9}t\u{e9}"][self.below(3)];
                let mut properties = Array::new();
                for n in 0..self.below(4) {
                    let name = [format!("p{n}"), format!("\0*\0p{n}"), format!("\0{class}\0p{n}")];
                    properties.insert(&name[self.below(3)], self.value(depth - 1));
                }
                Value::Object(Object::new(class, properties))
            }
        }
    }
}
