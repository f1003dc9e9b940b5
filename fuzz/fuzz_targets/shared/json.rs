//! Mutation of JSON as a tree: bytes alone seldom make a document that is still one.
//!
//! Owns the mutator; two of three times it changes the tree, else libFuzzer changes the bytes.

use libfuzzer_sys::fuzzer_mutate;
use serde_json::{Map, Value};

/// Numbers around which fields turn.
const NUMBERS: [i128; 24] = [
    0,
    1,
    -1,
    2,
    -2,
    5,
    10,
    100,
    511,
    512,
    1000,
    4095,
    4096,
    65535,
    65536,
    262_144,
    i32::MAX as i128,
    i32::MIN as i128,
    u32::MAX as i128 - 1,
    u32::MAX as i128,
    i64::MAX as i128,
    i64::MIN as i128,
    u64::MAX as i128 - 1,
    u64::MAX as i128,
];

/// Pieces of paths, lists and names.
const PIECES: [&str; 24] = [
    "",
    "/",
    "..",
    ".",
    ":",
    "-",
    "=",
    ",",
    "\u{0}",
    "\n",
    " ",
    "a",
    "0",
    "-1",
    "0-3",
    "max",
    "/proc",
    "/dev",
    "/sys",
    "é",
    "%",
    "*",
    ".slice",
    "18446744073709551616",
];

/// Changes `data`, a document of `size` bytes, into one of at most `most`.
pub fn mutate(data: &mut [u8], size: usize, most: usize, seed: u32) -> usize {
    let mut random = Random(u64::from(seed) << 1 | 1);
    if random.below(3) == 0 {
        return fuzzer_mutate(data, size, most);
    }
    let Ok(mut document) = serde_json::from_slice::<Value>(&data[..size]) else {
        return fuzzer_mutate(data, size, most);
    };
    let donor = document.clone();
    for _ in 0..=random.below(3) {
        let mut at = random.below(count(&document));
        change(&mut document, &mut at, &donor, &mut random);
    }
    match serde_json::to_vec(&document) {
        Ok(text) if text.len() <= most && text.len() <= data.len() => {
            data[..text.len()].copy_from_slice(&text);
            text.len()
        }
        _ => fuzzer_mutate(data, size, most),
    }
}

/// Nodes of a tree.
fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// The node numbered `at`.
fn node<'a>(value: &'a Value, at: &mut usize) -> Option<&'a Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter().find_map(|item| node(item, at)),
        Value::Object(fields) => fields.values().find_map(|item| node(item, at)),
        _ => None,
    }
}

/// Changes the node numbered `at`; whether it was found.
fn change(value: &mut Value, at: &mut usize, donor: &Value, random: &mut Random) -> bool {
    if *at == 0 {
        *value = another(value.take(), donor, random);
        return true;
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| change(item, at, donor, random)),
        Value::Object(fields) => fields.values_mut().any(|item| change(item, at, donor, random)),
        _ => false,
    }
}

fn another(old: Value, donor: &Value, random: &mut Random) -> Value {
    if random.below(12) == 0 {
        return Value::Null;
    }
    if random.below(8) == 0 {
        let mut at = random.below(count(donor));
        return node(donor, &mut at).cloned().unwrap_or_default();
    }
    match old {
        Value::Null => Value::Object(Map::new()),
        Value::Bool(value) => Value::Bool(!value),
        Value::Number(number) => {
            let near = number.as_i128().unwrap_or_default();
            let value = match random.below(4) {
                0 => near.saturating_add(1),
                1 => near.saturating_sub(1),
                _ => NUMBERS[random.below(NUMBERS.len())],
            };
            serde_json::Number::from_i128(value).map_or(Value::Null, Value::Number)
        }
        Value::String(text) => Value::String(other_text(text, donor, random)),
        Value::Array(mut items) => {
            let at = random.below(items.len() + 1);
            match random.below(4) {
                0 if at < items.len() => drop(items.remove(at)),
                1 if at < items.len() => items.push(items[at].clone()),
                2 if items.len() > 1 => items.rotate_left(1),
                _ => items.insert(at, Value::String(other_text(String::new(), donor, random))),
            }
            Value::Array(items)
        }
        Value::Object(mut fields) => {
            let keys: Vec<String> = fields.keys().cloned().collect();
            let key = keys.get(random.below(keys.len().max(1))).cloned().unwrap_or_else(|| "a".into());
            match random.below(3) {
                0 => drop(fields.remove(&key)),
                1 => {
                    let value = fields.remove(&key).unwrap_or_default();
                    fields.insert(other_text(key, donor, random), value);
                }
                _ => {
                    let mut at = random.below(count(donor));
                    let value = node(donor, &mut at).cloned().unwrap_or_default();
                    fields.insert(key, value);
                }
            }
            Value::Object(fields)
        }
    }
}

fn other_text(text: String, donor: &Value, random: &mut Random) -> String {
    let piece = PIECES[random.below(PIECES.len())];
    let cut =
        text.char_indices().nth(random.below(text.chars().count() + 1)).map_or(text.len(), |(at, _)| at);
    match random.below(6) {
        0 => piece.to_owned(),
        1 => format!("{}{piece}{}", &text[..cut], &text[cut..]),
        2 => text[..cut].to_owned(),
        3 => text[cut..].to_owned(),
        4 => {
            let mut at = random.below(count(donor));
            node(donor, &mut at).and_then(Value::as_str).unwrap_or(piece).to_owned()
        }
        _ => text.repeat(1 + random.below(3)),
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }
}
