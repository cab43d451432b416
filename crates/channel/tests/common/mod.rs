//! What these tests share.

use multiproc_channel::{Codec, CodecError};

/// Bytes as they are.
#[derive(Debug)]
pub(crate) struct Raw;

impl Codec<Vec<u8>> for Raw {
    fn encode(value: &Vec<u8>, into: &mut Vec<u8>) -> Result<(), CodecError> {
        into.extend_from_slice(value);
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(bytes.to_vec())
    }
}
