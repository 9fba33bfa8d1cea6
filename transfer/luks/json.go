package luks

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// An object is a JSON object of LUKS2 metadata (LUKS2 3). Its methods decode
// one member at a time, by its exact name. Decoding into a struct would accept
// "TYPE" for "type", which cryptsetup does not.
//
// The first missing or invalid member sets the error of the whole tree. Every
// later read returns zero.
type object struct {
	path    string // for errors
	members map[string]json.RawMessage
	err     *error
}

// parseObject parses the text of the whole metadata. encoding/json limits its
// depth. cryptsetup cuts strings and names at an escaped zero, so that it would
// read other values.
func parseObject(text []byte) (object, error) {
	if bytes.Contains(text, []byte(`\u0000`)) {
		return object{}, fmt.Errorf("%w: a string in the metadata has a zero", ErrDamaged)
	}
	o := object{err: new(error)}
	if len(text) == 0 || text[0] != '{' || json.Unmarshal(text, &o.members) != nil {
		return object{}, fmt.Errorf("%w: the metadata is not a JSON object", ErrDamaged)
	}
	return o, nil
}

// fail sets the error of the tree unless it has one.
func (o object) fail(name, what string) {
	if *o.err == nil {
		*o.err = fmt.Errorf("%w: %s: %s", ErrDamaged, printable(o.path+name), what)
	}
}

// has reports whether the object has the member.
func (o object) has(name string) bool {
	_, ok := o.members[name]
	return ok
}

// decode decodes a member. It refuses JSON's null.
func (o object) decode(name, what string, into any) {
	raw := o.members[name]
	if len(raw) == 0 || raw[0] == 'n' || json.Unmarshal(raw, into) != nil {
		o.fail(name, "not "+what)
	}
}

// object returns a member that is an object.
func (o object) object(name string) object {
	inner := object{path: o.path + name + ".", err: o.err}
	o.decode(name, "an object", &inner.members)
	return inner
}

// text returns a member that is a non-empty string.
func (o object) text(name string) string {
	var s string
	o.decode(name, "a string", &s)
	if s == "" {
		o.fail(name, "an empty string")
	}
	return s
}

// texts returns a member that is an array of strings.
func (o object) texts(name string) []string {
	var pointers []*string // nil for JSON's null
	o.decode(name, "an array of strings", &pointers)
	var s []string
	for _, p := range pointers {
		if p == nil {
			o.fail(name, "not an array of strings")
			return nil
		}
		s = append(s, *p)
	}
	return s
}

// number returns a member that is a non-negative integer.
func (o object) number(name string) uint64 {
	n, err := strconv.ParseUint(string(o.members[name]), 10, 64)
	if err != nil {
		o.fail(name, "not a positive integer")
	}
	return n
}

// decimal returns a member of the type string-uint64 (LUKS2 3).
func (o object) decimal(name string) uint64 {
	n, err := strconv.ParseUint(o.text(name), 10, 64)
	if err != nil {
		o.fail(name, "not a decimal number in a string")
		return 0
	}
	return n
}

// binary returns a member that is Base64 data. It refuses the line breaks that
// encoding/base64 ignores.
func (o object) binary(name string) []byte {
	s := o.text(name)
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		o.fail(name, "not Base64")
	}
	return b
}

// ids returns the names of the members, sorted. They must be numbers below
// luks2Objects.
func (o object) ids() []int {
	var ids []int
	for name := range o.members {
		id, err := strconv.Atoi(name)
		if err != nil || strconv.Itoa(id) != name || id < 0 || id >= luks2Objects {
			o.fail(name, fmt.Sprintf("not a number below %d", luks2Objects))
			return nil
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// only sets the error of the tree if the object has members other than names.
// cryptsetup refuses such members in the parameters of a key derivation,
// because they contradict the type.
func (o object) only(names ...string) {
	for _, name := range slices.Sorted(maps.Keys(o.members)) {
		if !slices.Contains(names, name) {
			o.fail(name, "not a member of this type")
		}
	}
}

// check sets the error of the tree to err unless it has one, and returns the
// tree's error.
func (o object) check(err error) error {
	if *o.err == nil {
		*o.err = err
	}
	return *o.err
}
