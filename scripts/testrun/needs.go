package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// needs is a set of what tests need, or a machine has.
type needs map[ublktest.Need]bool

func needsOf(list ...ublktest.Need) needs {
	n := needs{}
	for _, need := range list {
		n[need] = true
	}
	return n
}

// parse adds the needs of an attribute's value.
func (n needs) parse(value string) {
	for word := range strings.FieldsSeq(value) {
		n[ublktest.Need(word)] = true
	}
}

// missing returns the equipment that a machine does not have.
func (n needs) missing(has needs) []ublktest.Need {
	var list []ublktest.Need
	for need := range n {
		if need.IsEquipment() && !has[need] {
			list = append(list, need)
		}
	}
	slices.Sort(list)
	return list
}

// list returns the needs as words with commas between them.
func (n needs) list() string {
	var words []string
	for _, need := range slices.Sorted(maps.Keys(n)) {
		words = append(words, string(need))
	}
	return strings.Join(words, ",")
}
