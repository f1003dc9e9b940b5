//! state.json and the files beside it, as every later call reads them: from a real state directory.
#![no_main]

mod shared;

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use locule_runtime::state::{Entry, State, Store};
use locule_runtime::{Container, Kind, report};

const ID: &str = "fuzzed";

fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
    shared::json::mutate(data, size, most, seed)
});

static STORE: LazyLock<(Store, Entry)> = LazyLock::new(|| {
    let path = PathBuf::from(format!("/dev/shm/locule-fuzz-{}", std::process::id()));
    let store = Store::create_root(&path, false).expect("a state root on a tmpfs");
    let (entry, _) = store.claim(ID).expect("an entry in it");
    (store, entry)
});

fuzz_target!(|text: &[u8]| {
    let (store, entry) = &*STORE;
    entry.write("state.json", text).expect("writing the input");
    let state = match entry.load() {
        Ok(state) => state,
        Err(err) => {
            assert!(matches!(err.kind(), Kind::System | Kind::Unsupported), "{err:?}");
            return shared::refused(&err);
        }
    };
    // What is saved is what was loaded.
    entry.save(&state).expect("saving what was loaded");
    let again = entry.load().expect("loading what was saved");
    assert_eq!(text_of(&state), text_of(&again));
    let container = Container::load(store, ID).expect("the same by its name");
    // Reading calls only: a pid of the input may be anybody's.
    if let Ok(report) = container.report() {
        serde_json::to_string(&report).expect("a report can be written");
    }
    let hooks = report::for_hooks(&state, 1, "running");
    serde_json::from_slice::<serde_json::Value>(&hooks).expect("the state for hooks is JSON");
});

fn text_of(state: &State) -> String {
    serde_json::to_string(state).expect("a state can be written")
}
