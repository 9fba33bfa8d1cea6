package xts

import "fmt"

// ScheduleSize is the number of bytes in which a Cipher keeps its round keys:
// three schedules of 15 round keys, of which AES-128 uses 11.
const ScheduleSize = 3 * scheduleBytes

// scheduleBytes is the size of one expanded AES-256 key (FIPS 197, 5.2).
const scheduleBytes = 15 * blockSize

// These are the offsets of the schedules. The kernels use them as
// const_encryptKeys and so on.
const (
	encryptKeys = 0 * scheduleBytes // the data key's
	decryptKeys = 1 * scheduleBytes // the data key's, for the equivalent inverse cipher (FIPS 197, 5.3.5), in order of use
	tweakKeys   = 2 * scheduleBytes // the tweak key's
)

// expand fills mem with the round keys of key. The caller has checked the
// length of key.
func expand(impl implementation, mem, key []byte) (*Cipher, error) {
	if len(mem) < ScheduleSize {
		panic(fmt.Sprintf("xts: %d bytes of memory for round keys, ScheduleSize is %d", len(mem), ScheduleSize))
	}
	half := len(key) / 2
	c := &Cipher{keys: (*[ScheduleSize]byte)(mem), rounds: half/4 + 6, impl: impl}
	clear(c.keys[:])
	if impl == generic {
		return c, c.expandGeneric(key)
	}
	expandKey(&c.keys[encryptKeys], &key[0], c.rounds)
	invertKey(&c.keys[decryptKeys], &c.keys[encryptKeys], c.rounds)
	expandKey(&c.keys[tweakKeys], &key[half], c.rounds)
	return c, nil
}
