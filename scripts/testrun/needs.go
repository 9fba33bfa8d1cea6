package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// needs is a set of things that a test needs or that a machine has.
type needs map[ublktest.Need]bool

func needsOf(list ...ublktest.Need) needs {
	n := needs{}
	for _, need := range list {
		n[need] = true
	}
	return n
}

// parse adds the needs in an attribute's value.
func (n needs) parse(value string) {
	for word := range strings.FieldsSeq(value) {
		n[ublktest.Need(word)] = true
	}
}

// missing returns the equipment in n that a machine does not have.
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

// list returns the needs as a comma-separated list.
func (n needs) list() string {
	var words []string
	for _, need := range slices.Sorted(maps.Keys(n)) {
		words = append(words, string(need))
	}
	return strings.Join(words, ",")
}
