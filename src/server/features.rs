//! What the kernel is given of the features: their reactions to changes of others, in this order, and their secrets.

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
