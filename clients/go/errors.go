package latentserve

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What an [Error] is, beyond its code: for errors.Is.
var (
	// ErrQueueFull: too many rows wait for the model; RetryAfter says how long to wait.
	ErrQueueFull = errors.New("latentserve: the model's queue is full")
	// ErrMessageTooLarge: the request or the reply exceeds a limit. Trying again does not help:
	// send fewer images, ask for [Uint8] or [PNG], or raise [WithMaxMessageBytes].
	ErrMessageTooLarge = errors.New("latentserve: the message is too large")
	// ErrOperationNotSupported: the model lacks the operation; Metadata["operations"] has its own.
	ErrOperationNotSupported = errors.New("latentserve: the model lacks the operation")
	// ErrModelNotFound: no such model or version; Metadata["models"] lists what there is.
	ErrModelNotFound = errors.New("latentserve: no such model")
	// ErrBadReply: the reply breaks the wire contract; server and client differ in version.
	ErrBadReply = errors.New("latentserve: the reply breaks the contract")
)

// Violation is one field of a request that is wrong.
type Violation struct {
	// Field is a dotted path in the request, for example "images.tensor.shape".
	Field string
	// Description says what was sent and what is expected.
	Description string
}

// Error is what can go wrong in a call, by the server's answer, on the way to it, or before
// anything was sent (then with [codes.InvalidArgument]).
//
//	var failure *latentserve.Error
//	if errors.As(err, &failure) && failure.Code == codes.Unavailable { ... }
//
// errors.Is knows the ErrX values of this package, context.Canceled and
// context.DeadlineExceeded.
type Error struct {
	// Code is the gRPC status code.
	Code codes.Code
	// Message says what was wrong, what is expected and what to do.
	Message string
	// Reason is the server's own name for the error, for example "QUEUE_FULL"; empty where the
	// error does not come from the server.
	Reason string
	// Domain is "latentserve" where the server gave a Reason.
	Domain string
	// Metadata belongs to Reason; "request_id" finds the call in the server's log.
	Metadata map[string]string
	// Violations are the fields of the request that are wrong.
	Violations []Violation
	// RetryAfter is how long the server asks to wait before another attempt; 0: it did not say.
	RetryAfter time.Duration

	kind  error
	cause error
}

// Error returns the code, the message, and what of the details the message lacks.
func (e *Error) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "latentserve: %s: %s", codeName(e.Code), e.Message)
	for _, violation := range e.Violations {
		// A server often repeats its only violation as the message.
		if !strings.Contains(e.Message, violation.Description) {
			fmt.Fprintf(&text, "; %s: %s", violation.Field, violation.Description)
		}
	}
	if id := e.Metadata["request_id"]; e.Code == codes.Internal && !strings.Contains(e.Message, id) {
		fmt.Fprintf(&text, "; the server's log says why, under request id %s", id)
	}
	for _, key := range []string{"models", "operations"} {
		if have := e.Metadata[key]; have != "" && !strings.Contains(e.Message, have) {
			fmt.Fprintf(&text, "; there are: %s", have)
		}
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&text, "; try again in %v", e.RetryAfter)
	}
	return text.String()
}

// Unwrap returns the error of gRPC, nil for an error that was found before anything was sent.
func (e *Error) Unwrap() error { return e.cause }

// Is tells errors.Is what kind of error this is.
func (e *Error) Is(target error) bool {
	switch target {
	case context.Canceled:
		return e.Code == codes.Canceled
	case context.DeadlineExceeded:
		return e.Code == codes.DeadlineExceeded
	default:
		return e.kind != nil && target == e.kind
	}
}

// GRPCStatus makes status.Code and status.Convert of grpc-go work on this error.
func (e *Error) GRPCStatus() *status.Status {
	if e.cause != nil {
		return status.Convert(e.cause)
	}
	return status.New(e.Code, e.Message)
}

// FromError returns the Error of any error of a gRPC call, also of one that was made with the
// generated stubs; nil for nil.
func FromError(err error) *Error { return fromError(err, "") }

// fromError takes the message for a method whose server side sends none.
func fromError(err error, unsaid string) *Error {
	if err == nil {
		return nil
	}
	if already, ok := errors.AsType[*Error](err); ok {
		return already
	}
	answer, ok := status.FromError(err)
	if !ok {
		answer = status.FromContextError(err)
	}
	failure := &Error{Code: answer.Code(), Message: answer.Message(), cause: err}
	if failure.Message == "" {
		failure.Message = unsaid
	}
	if failure.Message == "" {
		failure.Message = "the server gave no reason"
	}
	for _, detail := range answer.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			failure.Reason, failure.Domain = detail.GetReason(), detail.GetDomain()
			failure.Metadata = detail.GetMetadata()
		case *errdetails.BadRequest:
			for _, v := range detail.GetFieldViolations() {
				failure.Violations = append(failure.Violations, Violation{v.GetField(), v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			failure.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	failure.kind = kindOf(failure)
	return failure
}

func kindOf(failure *Error) error {
	switch {
	case failure.Reason == "QUEUE_FULL":
		return ErrQueueFull
	case failure.Reason == "OPERATION_NOT_SUPPORTED":
		return ErrOperationNotSupported
	case failure.Reason == "MODEL_NOT_FOUND":
		return ErrModelNotFound
	// gRPC itself answers here, with a text and nothing else.
	case failure.Code == codes.ResourceExhausted && strings.Contains(failure.Message, "larger than max"):
		return ErrMessageTooLarge
	default:
		return nil
	}
}

// invalid returns the error for an argument that is refused before anything is sent.
func invalid(field, description string) *Error {
	return &Error{
		Code:       codes.InvalidArgument,
		Message:    field + ": " + description,
		Violations: []Violation{{field, description}},
	}
}

func badReply(message string) *Error {
	return &Error{
		Code:    codes.Internal,
		Message: message + "; the server and this client are of different versions: update the older one",
		kind:    ErrBadReply,
	}
}

// codeName returns a code as the protocol and every other language spell it.
func codeName(code codes.Code) string {
	names := [...]string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
		"ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
		"OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	}
	if int(code) < len(names) {
		return names[code]
	}
	return code.String()
}
