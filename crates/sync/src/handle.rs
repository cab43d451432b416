//! What all handles of this floor have in common: they are clones of one [`Held`](multiproc_shm::Held), and travel through serde.

/// `Clone`, `Serialize` and `Deserialize` for a handle with the fields `held` and `cell`.
macro_rules! handle {
    ($Name:ident $(<$T:ident: $Bound:path>)?, $kind:expr, $hash:expr) => {
        impl $(<$T: $Bound>)? Clone for $Name $(<$T>)? {
            fn clone(&self) -> Self {
                $Name { held: self.held.clone(), ..*self }
            }
        }

        impl $(<$T: $Bound>)? serde::Serialize for $Name $(<$T>)? {
            fn serialize<Se: serde::Serializer>(&self, serializer: Se) -> Result<Se::Ok, Se::Error> {
                multiproc_shm::scope::serialize(&self.held, serializer)
            }
        }

        impl<'de $(, $T: $Bound)?> serde::Deserialize<'de> for $Name $(<$T>)? {
            fn deserialize<De: serde::Deserializer<'de>>(deserializer: De) -> Result<Self, De::Error> {
                let held = multiproc_shm::scope::deserialize($kind, $hash, deserializer)?;
                Self::from_held(held).map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use handle;
