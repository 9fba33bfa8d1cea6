package stack

// A queue reads hash blocks into slots. A request that needs a hash block that is being read
// waits for it, and a request that finds no slot waits for one. So the memory is bounded, and
// no hash block is read twice at a time.

// hashSlots is the number of slots of a queue.
const hashSlots = 8

// none is the number of no tag and of no slot.
const none = -1

// hashSlot is a read of a hash block.
type hashSlot struct {
	layer   int    // whose tree it is; none if the slot is free
	block   uint64 // number in the tree
	memory  []byte
	waiting tagList
}

// tagList is a list of tags whose checks are linked.
type tagList struct{ first, last int }

// noTags is the empty list.
var noTags = tagList{none, none}

// push appends a tag to a list.
func (c *checker) push(l *tagList, tag int) {
	c.checks[tag].next = none
	if l.first == none {
		l.first = tag
	} else {
		c.checks[l.last].next = tag
	}
	l.last = tag
}

// pop takes the first tag of a list that is not empty.
func (c *checker) pop(l *tagList) int {
	tag := l.first
	l.first = c.checks[tag].next
	return tag
}

// slotFor returns the slot in which a tag can read a hash block. It returns none if the tag
// has to wait.
func (c *checker) slotFor(tag, layer int, block uint64) int {
	free := none
	for i := range c.slots {
		s := &c.slots[i]
		switch {
		case s.layer == layer && s.block == block:
			c.push(&s.waiting, tag)
			return none
		case s.layer == none:
			free = i
		}
	}
	if free == none {
		c.push(&c.needSlot, tag)
		return none
	}
	c.slots[free].layer, c.slots[free].block = layer, block
	c.freeSlots--
	return free
}

// release frees a slot. The requests that wait for its hash block can go on.
func (c *checker) release(slot int) {
	s := &c.slots[slot]
	s.layer = none
	c.freeSlots++
	for s.waiting.first != none {
		c.push(&c.ready, c.pop(&s.waiting))
	}
}
