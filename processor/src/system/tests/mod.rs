//! Tests of the system side: small programs on a [`Machine`](crate::testing::Machine).

mod bus_lock;
mod delivery;
mod privilege;
mod registers;
mod tasks;
mod v86;
mod waiting;
