package stack

// A queue reads hash blocks into slots. A check that needs a hash block that is being read
// waits for it, and a check that finds no slot waits for one. So the memory is bounded, and
// no hash block is read twice at a time.
//
// A slot can have further hash blocks, which were read ahead. They are checked when they are
// needed.

// hashSlots is the number of slots of a queue.
const hashSlots = 8

// none is the number of no check and of no slot.
const none = -1

// hashSlot is a read of adjacent hash blocks.
type hashSlot struct {
	layer   int    // whose tree it is; none if the slot is empty
	block   uint64 // number of the first one in the tree
	count   int    // of blocks
	reading bool
	filled  uint64 // how many slots were filled before
	memory  []byte
	waiting list
}

// list is a list of checks, by number.
type list struct{ first, last int }

// emptyList is the empty list.
var emptyList = list{none, none}

// push appends a check to a list.
func (c *checker) push(l *list, number int) {
	c.checks[number].next = none
	if l.first == none {
		l.first = number
	} else {
		c.checks[l.last].next = number
	}
	l.last = number
}

// pop takes the first check of a list that is not empty.
func (c *checker) pop(l *list) int {
	number := l.first
	l.first = c.checks[number].next
	return number
}

// find returns the slot that has a hash block, or will have it.
func (c *checker) find(layer int, block uint64) int {
	for i := range c.slots {
		s := &c.slots[i]
		if s.layer == layer && block-s.block < uint64(s.count) {
			return i
		}
	}
	return none
}

// takeSlot begins to use a slot for a read of hash blocks: an empty one, or else the one that was
// filled first. It returns none if all are being read.
func (c *checker) takeSlot(layer int, block uint64, count int) int {
	slot := none
	for i := range c.slots {
		if s := &c.slots[i]; !s.reading && (slot == none || s.filled < c.slots[slot].filled) {
			slot = i
		}
	}
	if slot != none {
		c.reuse(slot, layer, block, count)
	}
	return slot
}

// reuse begins to use a slot that is not being read.
func (c *checker) reuse(slot, layer int, block uint64, count int) {
	s := &c.slots[slot]
	s.layer, s.block, s.count, s.reading = layer, block, count, true
	c.freeSlots--
}

// release ends the read of a slot, and keeps its blocks or not. The checks that wait for them can
// go on.
func (c *checker) release(slot int, keep bool) {
	s := &c.slots[slot]
	s.reading = false
	c.freeSlots++
	if keep {
		c.fills++
		s.filled = c.fills
	} else {
		s.layer, s.filled = none, 0
	}
	for s.waiting.first != none {
		c.push(&c.ready, c.pop(&s.waiting))
	}
}
