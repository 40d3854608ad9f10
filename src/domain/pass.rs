//! Passes: what opens the dashboard in place of a token. A pass stands for a token without revealing it, allows no more than
//! the token does, and expires. It is sealed into a cookie (a session) or into an address (a dashboard link).

use std::time::Duration;

use crate::domain::{
    timestamp::Timestamp,
    token::{Scope, Scopes},
};

/// How long a session lasts at most.
pub const SESSION_MAX: Duration = Duration::from_hours(8);

/// How much a pass allows of what its token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To look.
    Read,
    /// To look, and to retry deliveries.
    Retry,
    /// Everything that the dashboard can do.
    Full,
}

/// Something that the dashboard does with the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It shows something.
    Show,
    /// It retries a delivery.
    Retry,
    /// It tests or changes a webhook.
    Change,
}

impl Access {
    const ALL: [Self; 3] = [Self::Read, Self::Retry, Self::Full];

    /// Whether it includes the action.
    #[must_use]
    pub const fn includes(self, action: Action) -> bool {
        match action {
            Action::Show => true,
            Action::Retry => matches!(self, Self::Retry | Self::Full),
            Action::Change => matches!(self, Self::Full),
        }
    }

    /// The scopes that a request for the action may use, if the token has them.
    #[must_use]
    pub fn scopes(self, action: Action) -> Scopes {
        let write = self.includes(action) && action != Action::Show;
        let write = write.then_some(Scope::WebhooksWrite);
        [Scope::WebhooksRead].into_iter().chain(write).collect()
    }
}

/// What a pass is sealed for. One cannot be used as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassKind {
    /// For a cookie.
    Session,
    /// For an address.
    Link,
}

impl PassKind {
    /// What the seal is bound to.
    #[must_use]
    pub const fn associated_data(self) -> &'static [u8] {
        match self {
            Self::Session => b"dashboard session",
            Self::Link => b"dashboard link",
        }
    }
}

/// A pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The digest of the token that it stands for: the token must be valid each time that the pass is used.
    pub token_digest: [u8; 32],
    /// What it allows.
    pub access: Access,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Pass {
    /// The session that this pass opens: it ends with the pass, and after [`SESSION_MAX`] at the latest.
    #[must_use]
    pub fn session(&self, now: Timestamp) -> Self {
        Self {
            expires_at: self.expires_at.min(now.plus(SESSION_MAX)),
            ..self.clone()
        }
    }

    /// The bytes that are sealed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self {
            token_digest,
            access,
            expires_at,
        } = self;
        let access = Access::ALL.iter().position(|other| other == access);
        let access = access.and_then(|position| u8::try_from(position).ok());
        [
            [access.unwrap_or_default()].as_slice(),
            &expires_at.as_millis().to_be_bytes(),
            token_digest,
        ]
        .concat()
    }

    /// The pass of these bytes; `None` if they are none, or if it has ended.
    #[must_use]
    pub fn parse(bytes: &[u8], now: Timestamp) -> Option<Self> {
        let ([access], rest) = bytes.split_first_chunk()?;
        let (expires_at, token_digest) = rest.split_first_chunk()?;
        let pass = Self {
            token_digest: token_digest.try_into().ok()?,
            access: *Access::ALL.get(usize::from(*access))?,
            expires_at: Timestamp::from_millis(i64::from_be_bytes(*expires_at)),
        };
        (pass.expires_at > now).then_some(pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_776_938_400_000);

    fn pass(access: Access, lasts: Duration) -> Pass {
        Pass {
            token_digest: [7; 32],
            access,
            expires_at: NOW.plus(lasts),
        }
    }

    #[test]
    fn a_pass_is_read_as_it_was_written_until_it_expires() {
        for access in Access::ALL {
            let pass = pass(access, Duration::from_secs(1));
            let bytes = pass.to_bytes();
            assert_eq!(Pass::parse(&bytes, NOW), Some(pass));
            assert_eq!(Pass::parse(&bytes, NOW.plus(Duration::from_secs(1))), None);
            assert_eq!(Pass::parse(&bytes[1..], NOW), None);
            assert_eq!(Pass::parse(&[&bytes[..], &[0]].concat(), NOW), None);
        }
        assert_eq!(Pass::parse(&[], NOW), None);
        let mut unknown = pass(Access::Full, Duration::from_secs(1)).to_bytes();
        unknown[0] = 3;
        assert_eq!(Pass::parse(&unknown, NOW), None, "an access of a newer version");
    }

    #[test]
    fn a_session_ends_with_its_pass_and_after_eight_hours_at_the_latest() {
        for (pass_lasts, session_lasts) in [(1, 1), (8, 8), (24, 8)] {
            let session = pass(Access::Read, Duration::from_hours(pass_lasts)).session(NOW);
            assert_eq!(session.expires_at, NOW.plus(Duration::from_hours(session_lasts)));
        }
    }

    #[test]
    fn an_action_uses_no_scope_that_it_does_not_need() {
        let (read, write) = ("webhooks:read", "webhooks:read webhooks:write");
        for (access, scopes) in [
            (Access::Read, [read, read, read]),
            (Access::Retry, [read, write, read]),
            (Access::Full, [read, write, write]),
        ] {
            let used = [Action::Show, Action::Retry, Action::Change].map(|action| access.scopes(action).to_string());
            assert_eq!(used, scopes, "{access:?}");
        }
    }
}
