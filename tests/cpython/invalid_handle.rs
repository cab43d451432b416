//! `TestInvalidHandle`: what is no handle is refused.

use crate::stage::watched;
use multiproc::{Lock, PipeReceiver, Queue, Semaphore, Value};

#[test]
fn invalid_handles() {
    let _watched = watched();
    // Handles are positions in a message's list of references; outside of a message they are nothing.
    assert!(serde_json::to_string(&Lock::new().unwrap()).is_err());
    for text in ["0", "1", "-1", "4294967295", "null", "\"x\""] {
        assert!(serde_json::from_str::<Lock>(text).is_err(), "{text}");
        assert!(serde_json::from_str::<Queue<u8>>(text).is_err(), "{text}");
        assert!(serde_json::from_str::<PipeReceiver<u8>>(text).is_err(), "{text}");
        assert!(serde_json::from_str::<Value<u64>>(text).is_err(), "{text}");
        assert!(serde_json::from_str::<Semaphore>(text).is_err(), "{text}");
    }
}
