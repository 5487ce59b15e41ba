//! Who a store is: the secret of its state hash, drawn when its directory is first opened. It lies in the log's state blob
//! and in each checkpoint, so that it outlives either, and so that a file of another store is known for what it is.
//!
//! ```text
//!  0          4         5                37
//!  +----------+---------+----------------+
//!  |  KVDS    | version |    secret      |
//!  +----------+---------+----------------+
//!       4         u8           32
//! ```

/// The format that this build writes, and the only one it reads.
pub(super) const VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"KVDS";
const BYTES: usize = 37;

/// The secret of a store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(pub(super) [u8; 32]);

/// Why bytes are no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotOurs {
    Foreign,
    Version(u8),
}

impl Identity {
    pub(super) fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [VERSION; BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[5..].copy_from_slice(&self.0);
        bytes
    }

    /// Looks at the version before anything that another version may have elsewhere.
    pub(super) fn decode(bytes: &[u8]) -> Result<Identity, NotOurs> {
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(NotOurs::Foreign)?;
        let (&version, secret) = rest.split_first().ok_or(NotOurs::Foreign)?;
        if *magic != MAGIC {
            return Err(NotOurs::Foreign);
        }
        if version != VERSION {
            return Err(NotOurs::Version(version));
        }
        secret.try_into().map(Identity).map_err(|_| NotOurs::Foreign)
    }
}

/// The secret is shown to nobody.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_identity_of_this_version_is_told_apart() {
        let bytes = Identity([7; 32]).encode();
        assert_eq!(bytes[..6], *b"KVDS\x01\x07");
        assert_eq!(Identity::decode(&bytes), Ok(Identity([7; 32])));
        assert_eq!(Identity::decode(b"KVDS\x02whatever it may be"), Err(NotOurs::Version(2)));
        for foreign in [&b""[..], b"KVDS", &bytes[..36], b"another program", &[&bytes[..], b"!"].concat()] {
            assert_eq!(Identity::decode(foreign), Err(NotOurs::Foreign), "{foreign:?}");
        }
    }
}
