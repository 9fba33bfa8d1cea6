package luks

import (
	"fmt"
	"math/bits"
)

// What unlocking may cost where Limits do not say. cryptsetup chooses costs by
// measuring the machine that makes a keyslot, for 2 seconds there by default,
// and such a volume must open on a slower machine too.
const (
	// maxArgon2Memory is in bytes, and cryptsetup's own maximum (its default
	// is at most 1 GiB).
	maxArgon2Memory = 4 << 30
	// maxArgon2Cpus is how many lanes cryptsetup makes at most.
	maxArgon2Cpus = 4
	// maxArgon2Work is in bytes: memory × passes. Two seconds on today's
	// fastest machines are some 10 passes over 1 GiB; this is 25 times that, and
	// takes minutes, not hours: 1 GiB takes from 0.8 seconds on two cores to
	// 2.5 on one.
	maxArgon2Work = 256 << 30
	// maxPBKDF2Work is in iterations × blocks of output. Two seconds on today's
	// fastest machines are some 20 million; this is 50 times that, and takes
	// 5 minutes with sha256 at 3.5 million a second, some 20 with ripemd160.
	maxPBKDF2Work = 1 << 30
)

// Limits bound what Unlock may cost, over all the keyslots that it tries. A
// keyslot that does not fit in what is left is not tried. Zero fields stand for
// bounds that every volume made by cryptsetup's defaults is far below.
type Limits struct {
	// Memory is what one derivation by argon2 may take, in bytes, such as what
	// the machine has free. Default and maximum: 4 GiB.
	Memory uint64
	// Argon2Work bounds memory × passes, in bytes. Default: 256 GiB.
	Argon2Work uint64
	// PBKDF2Work bounds iterations × blocks of output. Default: 2^30.
	PBKDF2Work uint64
}

// filled returns the limits with their defaults.
func (l Limits) filled() Limits {
	if l.Memory == 0 || l.Memory > maxArgon2Memory {
		l.Memory = maxArgon2Memory
	}
	if l.Argon2Work == 0 {
		l.Argon2Work = maxArgon2Work
	}
	if l.PBKDF2Work == 0 {
		l.PBKDF2Work = maxPBKDF2Work
	}
	return l
}

// spend takes the work of factors multiplied from what is left.
func spend(left *uint64, what string, factors ...uint64) error {
	work := uint64(1)
	for _, f := range factors {
		high, low := bits.Mul64(work, f)
		if high != 0 || low > *left {
			return fmt.Errorf("%s is more work than allowed: %w", what, ErrLimit)
		}
		work = low
	}
	*left -= work
	return nil
}
