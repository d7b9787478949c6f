//! This manager as one of several: messages to and from the others, where calls are carried out, who belongs to the
//! quorum, and what keeps this manager a member of it.

pub(crate) mod autopilot;
pub(crate) mod keeper;
pub(crate) mod peers;
pub(crate) mod plane;
pub(crate) mod router;
pub(crate) mod waiting;
