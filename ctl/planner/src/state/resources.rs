use tucano_api::service::ServiceConfig;

/// What processes reserve on a node. Sums and differences stop at the ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Thousandths of a CPU.
    pub(crate) millicpus: u64,
}

impl Resources {
    /// What a process of this configuration reserves.
    pub(crate) fn of(config: &ServiceConfig) -> Self {
        Self {
            memory: config.memory.0,
            millicpus: config.reserved_millicpus(),
        }
    }

    /// Whether it is nothing.
    pub(crate) fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// Whether there is as much in `room`.
    pub(crate) fn fits_in(self, room: Self) -> bool {
        self.memory <= room.memory && self.millicpus <= room.millicpus
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_add(other.memory),
            millicpus: self.millicpus.saturating_add(other.millicpus),
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_sub(other.memory),
            millicpus: self.millicpus.saturating_sub(other.millicpus),
        }
    }

    /// The larger of both, of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            memory: self.memory.max(other.memory),
            millicpus: self.millicpus.max(other.millicpus),
        }
    }
}

impl std::iter::Sum for Resources {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::plus)
    }
}
