//! socklife.
