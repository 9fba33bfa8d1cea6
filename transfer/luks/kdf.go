package luks

import (
	"crypto/pbkdf2"
	"fmt"
	"hash"
	"math"
	"runtime/debug"

	"golang.org/x/crypto/argon2"
)

// saltSize is the size of every salt in bytes (LUKS1 3.1; cryptsetup for
// LUKS2).
const saltSize = 32

// A kdf derives a key from a passphrase.
type kdf interface {
	// spend subtracts the cost of deriving size bytes from limits, or returns
	// an error that names the exceeded limit.
	spend(limits *Limits, size int) error
	// derive returns a key of size bytes. The caller wipes it.
	derive(passphrase []byte, size int) ([]byte, error)
}

// pbkdf2Params are the parameters of PBKDF2 with HMAC (LUKS1 2.3, LUKS2 3.2.5).
type pbkdf2Params struct {
	hash       func() hash.Hash
	salt       []byte
	iterations uint64
}

func (p pbkdf2Params) check() error {
	if p.iterations == 0 || len(p.salt) != saltSize {
		return fmt.Errorf("%w: pbkdf2 with %d iterations and a salt of %d bytes", ErrDamaged, p.iterations, len(p.salt))
	}
	return nil
}

func (p pbkdf2Params) spend(limits *Limits, size int) error {
	what := fmt.Sprintf("pbkdf2 with %d iterations", p.iterations)
	if p.iterations > math.MaxInt32 { // cryptsetup's maximum for LUKS2, and fits an int on every platform
		return fmt.Errorf("%s: %w", what, ErrLimit)
	}
	digest := p.hash().Size()
	blocks := (size + digest - 1) / digest
	return spend(&limits.PBKDF2Work, what, p.iterations, uint64(blocks))
}

func (p pbkdf2Params) derive(passphrase []byte, size int) ([]byte, error) {
	return pbkdf2.Key(p.hash, string(passphrase), p.salt, int(p.iterations), size)
}

// argon2Params are the parameters of Argon2 (LUKS2 3.2.5).
type argon2Params struct {
	kind   string // argon2i or argon2id
	salt   []byte
	passes uint64
	memory uint64 // KiB
	cpus   uint64 // lanes
}

func (p argon2Params) check() error {
	if p.passes == 0 || p.cpus == 0 || p.memory/8 < p.cpus || len(p.salt) != saltSize {
		return fmt.Errorf("%w: %s with %d passes, %d KiB, %d cpus and a salt of %d bytes",
			ErrDamaged, p.kind, p.passes, p.memory, p.cpus, len(p.salt))
	}
	return nil
}

func (p argon2Params) spend(limits *Limits, _ int) error {
	switch {
	case p.memory > limits.Memory/1024:
		return fmt.Errorf("%s takes %d MiB of memory, %d MiB are allowed: %w",
			p.kind, p.memory/1024, limits.Memory>>20, ErrLimit)
	case p.cpus > maxArgon2Cpus:
		return fmt.Errorf("%s takes %d cpus, at most %d are allowed: %w", p.kind, p.cpus, maxArgon2Cpus, ErrLimit)
	case p.passes > math.MaxUint32:
		return fmt.Errorf("%s with %d passes: %w", p.kind, p.passes, ErrLimit)
	}
	what := fmt.Sprintf("%s with %d passes over %d MiB", p.kind, p.passes, p.memory/1024)
	return spend(&limits.Argon2Work, what, p.passes, p.memory, 1024)
}

// derive returns its memory to the kernel before it returns. Otherwise the next
// keyslot would need its memory in addition, and a long-lived caller would keep
// it.
func (p argon2Params) derive(passphrase []byte, size int) ([]byte, error) {
	defer debug.FreeOSMemory()
	key := argon2.IDKey
	if p.kind == "argon2i" {
		key = argon2.Key
	}
	return key(passphrase, p.salt, uint32(p.passes), uint32(p.memory), uint8(p.cpus), uint32(size)), nil
}
