package luks

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
)

// checkObjects checks the members that every keyslot, digest, segment and token
// must have, and the references between them, also for objects of types that
// the package does not know (LUKS2 3). It returns the areas of the keyslots by
// number.
func checkObjects(root object) (map[int]area, error) {
	keyslots, segments := root.object("keyslots"), root.object("segments")
	areas := map[int]area{}
	for id, o := range keyslots.numbered() {
		areas[id] = checkKeyslot(o)
	}
	for _, o := range segments.numbered() {
		checkSegment(o)
	}
	for _, o := range root.object("tokens").numbered() {
		o.text("type")
		o.references("keyslots", keyslots)
	}
	digests := map[string]int{} // of each keyslot
	for _, o := range root.object("digests").numbered() {
		checkDigest(o)
		o.references("segments", segments)
		for _, name := range o.references("keyslots", keyslots) {
			digests[name]++
		}
	}
	for id := range keyslots.numbered() {
		if name := strconv.Itoa(id); digests[name] != 1 {
			keyslots.fail(name, fmt.Sprintf("%d digests, not 1", digests[name]))
		}
	}
	return areas, *root.err
}

// checkKeyslot checks the members that keyslots of every type have, and returns
// the keyslot's area (LUKS2 3.2, 3.2.3).
func checkKeyslot(o object) area {
	o.text("type")
	if o.number("key_size") > math.MaxUint32 {
		o.fail("key_size", "not a number of 32 bits")
	}
	readPriority(o)
	at := o.object("area")
	at.text("type")
	return area{offset: at.decimal("offset"), size: at.decimal("size")}
}

// checkSegment checks the members that segments of every type have (LUKS2 3.3).
func checkSegment(o object) {
	o.text("type")
	o.decimal("offset")
	if o.text("size") != "dynamic" && o.decimal("size") == 0 {
		o.fail("size", "zero")
	}
	o.optionalTexts("flags")
}

// checkDigest checks the members of a digest, except for its references (LUKS2
// 3.4).
func checkDigest(o object) {
	kind := o.text("type")
	o.binary("salt")
	o.binary("digest")
	if kind == "pbkdf2" {
		o.text("hash")
		o.number("iterations")
	}
}

// references returns a member that is an array of names. Each must name a
// member of objects, and none may occur twice. The number of comparisons is
// limited by that of objects, however long the array is.
func (o object) references(name string, objects object) []string {
	names := o.texts(name)
	for i, n := range names {
		switch {
		case !objects.has(n):
			o.fail(name, printable(n)+" does not exist")
			return nil
		case slices.Contains(names[:i], n):
			o.fail(name, printable(n)+" occurs twice")
			return nil
		}
	}
	return names
}

// optionalTexts returns a member that is an array of strings, or nil if the
// object does not have the member.
func (o object) optionalTexts(name string) []string {
	if !o.has(name) {
		return nil
	}
	return o.texts(name)
}

// numbered yields the members of an object of objects in the order of their
// numbers.
func (o object) numbered() iter.Seq2[int, object] {
	return func(yield func(int, object) bool) {
		for _, id := range o.ids() {
			if !yield(id, o.object(strconv.Itoa(id))) {
				return
			}
		}
	}
}
