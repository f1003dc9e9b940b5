//! Random archives with an oracle: whatever they hold, nothing outside the root may change.

use locule_images::unpack::Options;

use crate::Place;
use crate::tarball::{Header, Tarball};

/// A small generator that needs no crate: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }

    fn path(&mut self) -> String {
        const PARTS: &[&str] =
            &["a", "b", "c", "outside", "dir", "file", ".wh.a", ".wh..wh..opq", ".", "", "link"];
        let parts = 1 + self.next(4);
        (0..parts).map(|_| PARTS[self.next(PARTS.len())]).collect::<Vec<_>>().join("/")
    }

    fn target(&mut self, outside: &str) -> String {
        match self.next(6) {
            0 => outside.to_owned(),
            1 => format!("{outside}/file"),
            2 => "../".repeat(1 + self.next(4)) + "outside/dir",
            3 => "..".to_owned(),
            4 => format!("/{}", self.path()),
            _ => self.path(),
        }
    }
}

#[test]
fn nothing_escapes() {
    let seed = std::env::var("LOCULE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
    });
    println!("LOCULE_SEED={seed} repeats this run");
    let mut random = Random(seed);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..300 {
        let place = Place::new();
        let outside = place.outside();
        let mut archive = Tarball::default();
        for _ in 0..1 + random.next(30) {
            let path = random.path();
            archive = match random.next(8) {
                0 | 1 => archive.symlink(&path, &random.target(&outside)),
                2 => archive.link(&path, &random.target(&outside)),
                3 => archive.raw(Header::new(&path, b'5', 0).mode(0o777).owner(1, 1), b""),
                4 => archive.pax(&[("path", random.target(&outside).as_bytes())]).file("x", b"evil"),
                5 => archive.raw(Header::new(&path, b'6', 0), b""),
                _ => archive.file(&path, b"evil"),
            };
        }
        let mut bytes = archive.end();
        if random.next(3) == 0 {
            let at = random.next(bytes.len());
            bytes[at] ^= 1 << random.next(8);
        }
        // The oracle is in `unpack_with`.
        match place.unpack_with(&bytes, &Options::here()) {
            Ok(()) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused: the generator is one-sided");
}
