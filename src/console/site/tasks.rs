//! The tasks of everybody.

use crate::console::tasks::{self, Whose};
use crate::console::visit::{View, Visit};
use crate::kernel::error::Result;

pub async fn list(visit: &Visit) -> Result<View> {
    tasks::list(visit, Whose::Site).await
}

pub async fn one(visit: &Visit) -> Result<View> {
    tasks::one(visit, Whose::Site).await
}

pub async fn act(visit: &Visit) -> Result<View> {
    tasks::act(visit, Whose::Site).await
}
