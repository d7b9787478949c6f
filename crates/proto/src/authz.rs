//! Which role may call which RPC.
