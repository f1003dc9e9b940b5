//! docs/security.md against the sources: every test that its table names exists.
//!
//! Owns the reading of the table. Needs no privileges and no lane.

use std::fs;
use std::path::Path;

/// CVEs and advisories of the survey that the table must not lose.
const KNOWN: [&str; 26] = [
    "CVE-2016-3697",
    "CVE-2016-9962",
    "CVE-2019-5736",
    "CVE-2019-16884",
    "CVE-2019-18837",
    "CVE-2019-19921",
    "CVE-2021-30465",
    "CVE-2021-43784",
    "CVE-2022-29162",
    "CVE-2022-27650",
    "CVE-2023-25809",
    "CVE-2023-27561",
    "CVE-2023-28642",
    "CVE-2024-21626",
    "CVE-2024-45310",
    "CVE-2025-24965",
    "CVE-2025-27612",
    "CVE-2025-31133",
    "CVE-2025-52565",
    "CVE-2025-52881",
    "CVE-2025-54867",
    "CVE-2025-62161",
    "CVE-2025-62596",
    "CVE-2026-30892",
    "CVE-2026-41579",
    "GHSA-3q8j-pf29-vwv8",
];

#[test]
fn names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let rows: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| CVE-") || line.starts_with("| GHSA-")).collect();
    for known in KNOWN {
        assert!(rows.iter().any(|row| row.contains(known)), "{known} is not in the table");
    }
    let mut named = 0;
    for row in rows {
        let tests: Vec<&str> = row.split('`').skip(1).step_by(2).filter(|word| word.contains("::")).collect();
        assert!(!tests.is_empty(), "no test in: {row}");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap();
            let source = fs::read_to_string(root.join(file)).unwrap_or_else(|err| panic!("{file}: {err}"));
            // A shell suite's tests are named by what they say.
            let words = if file.ends_with(".sh") { format!("\"{name}\"") } else { format!("fn {name}()") };
            assert!(source.contains(&words), "{test} is named in the table and not in the sources");
            named += 1;
        }
    }
    assert!(named > KNOWN.len());
}
