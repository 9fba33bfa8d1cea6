package luks

import "fmt"

// readKDF reads the key derivation of a keyslot (LUKS2 3.2.5).
func readKDF(o object) (kdf, error) {
	switch kind := o.text("type"); kind {
	case "pbkdf2":
		o.only("type", "salt", "hash", "iterations")
		return readPBKDF2(o)
	case "argon2i", "argon2id":
		o.only("type", "salt", "time", "memory", "cpus")
		p := argon2Params{
			kind: kind, salt: o.binary("salt"),
			passes: o.number("time"), memory: o.number("memory"), cpus: o.number("cpus"),
		}
		return p, o.check(p.check())
	default:
		return nil, fmt.Errorf("key derivation %s: %w", printable(kind), ErrUnsupported)
	}
}

// readPBKDF2 reads the pbkdf2 parameters of a keyslot or a digest.
func readPBKDF2(o object) (pbkdf2Params, error) {
	p := pbkdf2Params{salt: o.binary("salt"), iterations: o.number("iterations")}
	name := o.text("hash")
	if err := o.check(p.check()); err != nil {
		return p, err
	}
	var err error
	p.hash, err = hashNamed(name)
	return p, err
}
