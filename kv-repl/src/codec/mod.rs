//! Bytes on the wire between nodes: frames with a length and a checksum, on tokio-util's codec traits.

mod frame;
mod message;

pub use frame::{FRAME_BYTES_MAX, Frame, FrameCodec, GREETING_BYTES_MAX, WireError};
pub use message::Hello;
