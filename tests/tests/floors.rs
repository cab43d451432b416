//! A crate imports only from floors below.

use std::process::Command;

const FLOORS: [(&str, &[&str]); 8] = [
    ("multiproc-sys", &[]),
    ("multiproc-shm", &["multiproc-sys"]),
    ("multiproc-sync", &["multiproc-sys", "multiproc-shm"]),
    ("multiproc-channel", &["multiproc-sys", "multiproc-shm"]),
    ("multiproc-process", &["multiproc-sys", "multiproc-shm", "multiproc-sync", "multiproc-channel"]),
    ("multiproc-pool", &["multiproc-sys", "multiproc-shm", "multiproc-sync", "multiproc-channel", "multiproc-process"]),
    ("multiproc-named", &["multiproc-sys"]),
    (
        "multiproc",
        &[
            "multiproc-sys",
            "multiproc-shm",
            "multiproc-sync",
            "multiproc-channel",
            "multiproc-process",
            "multiproc-pool",
            "multiproc-named",
        ],
    ),
];

#[test]
fn imports_point_down() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let args = ["metadata", "--format-version=1", "--no-deps", "--offline", "--manifest-path", manifest];
    let output = Command::new(env!("CARGO")).args(args).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    for (name, below) in FLOORS {
        let package = packages.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("{name} is gone"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let imported = dependency["name"].as_str().expect("a name");
            let normal = dependency["kind"].is_null();
            assert!(!normal || !imported.starts_with("multiproc") || below.contains(&imported), "{name} imports {imported}");
        }
    }
}
