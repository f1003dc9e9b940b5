// Package tap prints the Test Anything Protocol, version 13.
//
// For: the OCI validation programs, which want a library that Debian does not package; this one has its interface.
// Owns: the numbering of the tests of one program.
// Never: decides what passes.
package tap

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// T numbers and prints the results of one program.
type T struct {
	// Writer is where the results go; standard output when nil.
	Writer io.Writer
	// TODO marks results as expected not to pass yet.
	TODO bool

	// A pointer, because Todo shares the numbering.
	last *int
}

// New makes a T that has printed nothing.
func New() *T {
	return &T{last: new(int)}
}

func (t *T) out() io.Writer {
	if t.Writer == nil {
		return os.Stdout
	}
	return t.Writer
}

func (t *T) result(word, description, directive string) {
	*t.last++
	line := fmt.Sprintf("%s %d", word, *t.last)
	if description != "" {
		line += " - " + strings.ReplaceAll(description, "\n", " ")
	}
	if t.TODO && directive == "" {
		directive = "TODO"
	}
	if directive != "" {
		line += " # " + directive
	}
	fmt.Fprintln(t.out(), line)
}

// Header prints the version, and the plan when the number of tests is known.
func (t *T) Header(count int) {
	fmt.Fprintln(t.out(), "TAP version 13")
	if count > 0 {
		fmt.Fprintf(t.out(), "1..%d\n", count)
	}
}

// AutoPlan prints the plan for the tests that ran.
func (t *T) AutoPlan() {
	fmt.Fprintf(t.out(), "1..%d\n", *t.last)
}

// Ok prints a pass or a failure.
func (t *T) Ok(passed bool, description string) {
	if passed {
		t.Pass(description)
	} else {
		t.Fail(description)
	}
}

// Pass prints a pass.
func (t *T) Pass(description string) {
	t.result("ok", description, "")
}

// Fail prints a failure.
func (t *T) Fail(description string) {
	t.result("not ok", description, "")
}

// Skip prints count skipped tests.
func (t *T) Skip(count int, description string) {
	for i := 0; i < count; i++ {
		t.result("ok", "", "SKIP "+description)
	}
}

// Todo returns a T whose results are marked as not expected to pass yet.
func (t *T) Todo() *T {
	todo := *t
	todo.TODO = true
	return &todo
}

// Diagnostic prints a comment.
func (t *T) Diagnostic(message string) {
	for _, line := range strings.Split(strings.TrimRight(message, "\n"), "\n") {
		fmt.Fprintln(t.out(), "# "+line)
	}
}

// Diagnosticf prints a formatted comment.
func (t *T) Diagnosticf(format string, arguments ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, arguments...))
}

// YAML prints structured detail on the result before it. JSON is YAML.
func (t *T) YAML(detail interface{}) error {
	text, err := json.MarshalIndent(detail, "  ", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out(), "  ---\n  %s\n  ...\n", text)
	return err
}
