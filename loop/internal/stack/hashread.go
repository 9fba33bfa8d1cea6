package stack

// A queue reads hash blocks into slots. A check that needs a hash block that is being read
// waits for it, and a check that finds no slot waits for one. So the memory is bounded, and
// no hash block is read twice at a time.

// hashSlots is the number of slots of a queue.
const hashSlots = 8

// none is the number of no check and of no slot.
const none = -1

// hashSlot is a read of a hash block.
type hashSlot struct {
	layer   int    // whose tree it is; none if the slot is free
	block   uint64 // number in the tree
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

// slotFor returns the slot in which a check can read a hash block. It returns none if the check
// has to wait.
func (c *checker) slotFor(number, layer int, block uint64) int {
	free := none
	for i := range c.slots {
		s := &c.slots[i]
		switch {
		case s.layer == layer && s.block == block:
			c.push(&s.waiting, number)
			return none
		case s.layer == none:
			free = i
		}
	}
	if free == none {
		c.push(&c.needSlot, number)
		return none
	}
	c.slots[free].layer, c.slots[free].block = layer, block
	c.freeSlots--
	return free
}

// release frees a slot. The checks that wait for its hash block can go on.
func (c *checker) release(slot int) {
	s := &c.slots[slot]
	s.layer = none
	c.freeSlots++
	for s.waiting.first != none {
		c.push(&c.ready, c.pop(&s.waiting))
	}
}
