// Package apart runs the process that serves the requests of devices in a sandbox, and the messages
// between that process and the server that controls the devices.
//
//	server                                   process
//	Start: starts the process           ──>  locks its memory
//	                                    <──  is prepared
//	removes its files (sandbox)         ──>
//	                                    <──  has entered the sandbox
//	makes its rings, if it must not     ──>
//	                                    <──  has got a ring
//	Serve: work, descriptors, key       ──>  makes the rings, fetches all tags
//	                                    <──  serves the device, or an error
//	Settle                              ──>  gives back memory
//	                                    <──  has found a wrong block, or that a store is full
//	Ask: about the stores               ──>  forks, merges, counts
//	                                    <──  an answer with the number of the request
//	                                    <──  the queues of the device have ended, or an error
//	has no devices: closes its side     ──>  ends
//
// The process can ask for nothing. It can only report. Each report has the number of the device or of the
// request that it is about. A report without a number says that threads of several devices have failed. The
// server then kills the process. If the server ends for any reason, the kernel kills the process.
//
// Publisher is another process in a sandbox. It answers the clients of a listener.
package apart
