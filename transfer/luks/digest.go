package luks

import (
	"crypto/subtle"
	"fmt"
	"slices"
	"strconv"
)

// A digest identifies the volume key (LUKS1 4.1, LUKS2 3.4).
type digest struct {
	pbkdf2Params
	sum []byte
}

// verify returns ErrWrongPassphrase unless the digest belongs to key.
func (d digest) verify(key []byte) error {
	sum, err := d.derive(key, len(d.sum))
	if err != nil {
		return err
	}
	defer clear(sum)
	if subtle.ConstantTimeCompare(sum, d.sum) != 1 {
		return ErrWrongPassphrase
	}
	return nil
}

// readDigest returns the digest of the segment's key, and the names of the
// keyslots that contain this key (LUKS2 3.4).
func readDigest(digests object, segment string) (digest, []string, error) {
	var found []object
	for _, id := range digests.ids() {
		o := digests.object(strconv.Itoa(id))
		if slices.Contains(o.texts("segments"), segment) {
			found = append(found, o)
		}
	}
	switch {
	case *digests.err != nil:
		return digest{}, nil, *digests.err
	case len(found) != 1:
		return digest{}, nil, fmt.Errorf("%w: segment %s has %d digests", ErrDamaged, segment, len(found))
	}
	o := found[0]
	if kind := o.text("type"); *o.err == nil && kind != "pbkdf2" {
		return digest{}, nil, fmt.Errorf("digest of type %s: %w", printable(kind), ErrUnsupported)
	}
	d, bound := digest{sum: o.binary("digest")}, o.texts("keyslots")
	var err error
	if d.pbkdf2Params, err = readPBKDF2(o); err != nil {
		return digest{}, nil, err
	}
	// cryptsetup accepts two lengths: that of LUKS1, which a converted header
	// keeps, and that of the hash.
	if n := len(d.sum); n != luks1DigestSize && n != d.hash().Size() {
		o.fail("digest", fmt.Sprintf("%d bytes long", n))
	}
	return d, bound, *o.err
}
