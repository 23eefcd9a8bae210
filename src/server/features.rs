//! What the features register with the kernel: their reactions to occurrences, in the order in which they run, and
//! their secret columns.

use crate::features::{api_keys, grants, invitations, jobs, members, plugins, quotas, sessions, webhooks};
use crate::integrations::sftpgo;
use crate::kernel::app::Features;

pub static FEATURES: Features = Features {
    reactions: &[
        members::react,
        sessions::react,
        api_keys::react,
        invitations::react,
        grants::react,
        quotas::react,
        jobs::react,
        webhooks::react,
        plugins::react,
        sftpgo::react,
    ],
    secrets: &[sessions::SECRET],
};
