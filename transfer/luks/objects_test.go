package luks

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// otherDigest returns the digest of a key that no segment uses.
func otherDigest(keyslots ...string) node {
	b := base64.StdEncoding.EncodeToString(make([]byte, 32))
	return node{
		"type": "pbkdf2", "hash": "sha256", "iterations": 1000, "salt": b, "digest": b,
		"segments": []string{}, "keyslots": keyslots,
	}
}

// otherKeyslot adds keyslot 31 of an unknown type with its digest 31, and
// changes both.
func otherKeyslot(change func(slot, digest node)) func(node) {
	return func(root node) {
		slot := node{
			"type": "other", "key_size": 17,
			"area": node{"type": "any", "offset": "548864", "size": "4096"},
		}
		digest := otherDigest("31")
		root.at("keyslots")["31"], root.at("digests")["31"] = slot, digest
		if change != nil {
			change(slot, digest)
		}
	}
}

// token adds a token.
func token(id string, members node) func(node) {
	return func(root node) { root.at("tokens")[id] = members }
}

func slot31(name string, value any) func(node) {
	return otherKeyslot(func(slot, _ node) { slot[name] = value })
}

func area31(name string, value any) func(node) {
	return otherKeyslot(func(slot, _ node) { area, _ := slot["area"].(node); area[name] = value })
}

func digest31(name string, value any) func(node) {
	return otherKeyslot(func(_, digest node) { digest[name] = value })
}

var contradictions = []refusedLUKS2{
	{"digests.0.keyslots: 7 does not exist", digest0("keyslots", []string{"0", "7"}), ErrDamaged},
	{"digests.0.segments: 7 does not exist", digest0("segments", []string{"0", "7"}), ErrDamaged},
	{"digests.0.keyslots: 00 does not exist", digest0("keyslots", []string{"0", "00"}), ErrDamaged},
	{"digests.0.keyslots: 0 occurs twice", digest0("keyslots", []string{"0", "0"}), ErrDamaged},
	{"digests.0.keyslots: not an array", digest0("keyslots", []any{"0", nil}), ErrDamaged},
	{"digests.0.keyslots: not an array", digest0("keyslots", []any{"0", 0}), ErrDamaged},
	{"digests.31.keyslots: 7 does not exist", digest31("keyslots", []string{"31", "7"}), ErrDamaged},
	{"digests.31.segments: 7 does not exist", digest31("segments", []string{"7"}), ErrDamaged},
	{"digests.31.segments", digest31("segments", nil), ErrDamaged},
	{"digests.31.salt: not Base64", digest31("salt", "AA=\n="), ErrDamaged},
	{"digests.31.digest", digest31("digest", 1), ErrDamaged},
	{"digests.31.hash", digest31("hash", ""), ErrDamaged},
	{"digests.31.iterations", digest31("iterations", "1"), ErrDamaged},
	{"digests.31.type", digest31("type", ""), ErrDamaged},
	{"keyslots.0: 0 digests", digest0("keyslots", []string{}), ErrDamaged},
	{"keyslots.31: 0 digests", digest31("keyslots", []string{}), ErrDamaged},
	{"keyslots.31: 2 digests", func(r node) { otherKeyslot(nil)(r); digest0("keyslots", []string{"0", "31"})(r) }, ErrDamaged},

	{"keyslots.31.key_size", slot31("key_size", nil), ErrDamaged},
	{"keyslots.0.key_size: not a number of 32 bits", slot0("key_size", 1<<32), ErrDamaged},
	{"keyslots.31.priority", slot31("priority", 3), ErrDamaged},
	{"keyslots.31.area", slot31("area", nil), ErrDamaged},
	{"keyslots.31.area.type", area31("type", ""), ErrDamaged},
	{"keyslots.31.area.offset", area31("offset", 548864), ErrDamaged},
	{"keyslots.31.area.size", area31("size", nil), ErrDamaged},
	{"keyslot 31 lies outside", area31("offset", "552961"), ErrDamaged},
	{"keyslot 31 lies outside", area31("offset", "290815"), ErrDamaged}, // the last byte of keyslot 0
	{"keyslot 31 has 0 bytes", area31("size", "0"), ErrDamaged},

	{"keyslots.0.area.type: none", area0("type", "none"), ErrDamaged},
	{"keyslots.0.af.type: luks2", func(r node) { r.at("keyslots", "0", "af")["type"] = "luks2" }, ErrDamaged},
	{"keyslots.0.kdf.iterations", kdf0("iterations", 1000), ErrDamaged},
	{"keyslots.0.kdf.cpus", func(r node) {
		r.at("keyslots", "0")["kdf"] = node{"type": "pbkdf2", "hash": "sha256", "iterations": 1000, "cpus": 1, "salt": "AA=="}
	}, ErrDamaged},
	{"stripes", func(r node) { // a keyslot of another key
		otherKeyslot(nil)(r)
		r.at("keyslots", "0", "af")["stripes"] = 1
		digest0("keyslots", []string{"31"})(r)
		r.at("digests")["31"] = otherDigest("0")
	}, ErrDamaged},

	{"segments.0.flags", segment0("flags", "x"), ErrDamaged},
	{"segments.0.flags", segment0("flags", []any{"x", 1}), ErrDamaged},
	{"segments.0.flags", segment0("flags", nil), ErrDamaged},
	{"segments.0.flags: backup", segment0("flags", []string{"backup-final"}), ErrDamaged},
	{"reencryption", segment0("flags", []string{"in-reencryption"}), ErrUnsupported},
	{"segments.0: missing", func(r node) {
		r["segments"] = node{"7": r.at("segments")["0"]}
		digest0("segments", []string{"7"})(r)
	}, ErrDamaged},

	{"tokens: not an object", func(r node) { delete(r, "tokens") }, ErrDamaged},
	{"tokens.x", token("x", node{"type": "other", "keyslots": []string{}}), ErrDamaged},
	{"tokens.0.type", token("0", node{"type": 1, "keyslots": []string{}}), ErrDamaged},
	{"tokens.0.keyslots", token("0", node{"type": "other"}), ErrDamaged},
	{"tokens.0.keyslots: 7 does not exist", token("0", node{"type": "other", "keyslots": []string{"7"}}), ErrDamaged},

	{"a string in the metadata has a zero", segment0("offset\x00", "2048"), ErrDamaged},
	{"a string in the metadata has a zero", segment0("encryption", "aes-xts-plain64\x00"), ErrDamaged},
	{"a string in the metadata has a zero", token("0", node{"type": "other", "keyslots": []string{}, "x": []string{"\x00"}}), ErrDamaged},

	{"config.flags", func(r node) { r.at("config")["flags"] = "allow-discards" }, ErrDamaged},
	{"config.flags", func(r node) { r.at("config")["flags"] = []int{1} }, ErrDamaged},
	{"keyslots area of 134221824 bytes", func(r node) { r.at("config")["keyslots_size"] = "134221824"; segment0("offset", "268435456")(r) }, ErrDamaged},
}

// The objects contradict each other, or lack members that each object must have.
func TestReadContradictions(t *testing.T) {
	for _, test := range contradictions {
		m := luks2(t).edit(t, test.change)
		m.size = 512 << 20
		_, err := refusal(m)
		expectErr(t, err, test.want)
		if err != nil && !strings.Contains(err.Error(), test.what) {
			t.Errorf("%q does not tell of %q", err, test.what)
		}
	}
}

// The binary header's padding is zero, and its strings end.
func TestReadPadding(t *testing.T) {
	for what, change := range map[string]func(b []byte){
		"padding that is not zero": func(b []byte) { b[264] = 1 },
		"padding":                  func(b []byte) { b[447] = 1 },
		"not zero":                 func(b []byte) { b[512] = 1 },
		"zero":                     func(b []byte) { b[4095] = 1 },
		"a string does not end":    func(b []byte) { fill(b[208:256], 'x') },
	} {
		m := luks2(t).clone()
		for _, at := range []int{0, fixtureSize} {
			change(m.data[at:][:fixtureSize])
			seal(m.data[at:][:fixtureSize])
		}
		_, err := m.read()
		expectErr(t, err, ErrDamaged)
		if err != nil && !strings.Contains(err.Error(), what) {
			t.Errorf("%q does not tell of %q", err, what)
		}
	}
	m := luks2(t).damage(448+32, fixtureSize+448+32) // after the 32 bytes of sha256
	_, err := m.read()
	expectErr(t, err, ErrDamaged)
}

// A header of 4 MiB that names 400,000 keyslots is refused within seconds: the
// names are not compared with each other.
func TestReadManyReferences(t *testing.T) {
	const size = 4 << 20
	names := make([]string, 400_000)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	m := luks2(t)
	var root node
	if err := json.Unmarshal(m.json(), &root); err != nil {
		t.Fatal(err)
	}
	digest0("keyslots", names)(root)
	text, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	copy(b, m.data[:luks2BinarySize])
	binary.BigEndian.PutUint64(b[8:], size)
	copy(b[luks2BinarySize:], text)
	seal(b)
	start := ublktest.ProcessorTime(t)
	_, err = image{b, 16 << 20}.read()
	expectErr(t, err, ErrDamaged)
	if took := ublktest.ProcessorTime(t) - start; took > 10*time.Second {
		t.Errorf("refusing took %v", took)
	}
}
