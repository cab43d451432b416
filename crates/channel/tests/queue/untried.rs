//! Parts of a queue's cell that no model tries: they are only there.

pub(crate) mod dead {
    #[derive(Debug)]
    pub(crate) struct DeadCell;
}

pub(crate) mod volume {
    use crate::ring::cell::End;
    use crate::world::AtomicU64;

    #[derive(Debug)]
    pub(crate) struct Volume;

    impl Volume {
        pub(crate) fn at(&self, _end: End) -> Option<End> {
            None
        }

        pub(crate) fn first_word(&self) -> &AtomicU64 {
            unreachable!("nothing is born old here")
        }
    }
}
