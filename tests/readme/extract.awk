# SPDX-License-Identifier: BSL-1.0
# awk -v root=PROJECT -v out=DIRECTORY -f extract.awk DOCUMENT
# Writes the C++ blocks of a document (fenced by ```cpp) as sources to DIRECTORY and prints their names, one a line:
#   a block with a main() is a program, program_1.cpp, …
#   any other is the body of a function in fragments.cpp; `pool` is a process_pool there, unless the block makes one
# A comment in front of a block, which nobody sees in the rendered document, says what else it is:
#   <!-- declarations -->          not a body: it stands in fragments.cpp as it is, for all blocks after it
#   <!-- examples/NAME -->         an excerpt of that file, which must say the same; it is compiled there. A program must
#                                  be all of it but the comment at its head. For blocks of any language.
# Lines from <!-- cpp to --> stand in fragments.cpp as declarations that the document does not show.

function fail(line, text) {
  print FILENAME ":" line ": " text > "/dev/stderr"
  bad = 1
}

function contents(path,    text, line) {
  text = ""
  while ((getline line < path) > 0) text = text line "\n"
  close(path)
  return text
}

function at_line(number) { return "#line " number " \"" FILENAME "\"\n" }

function is_program(text) { return text ~ /(^|\n)int main\(/ }

function compare(    file, at, head) {
  file = contents(root "/" excerpt)
  at = index("\n" file, "\n" block)
  if (at == 0) {
    fail(begin, "this is not what " excerpt " says")
  } else if (is_program(block)) {
    head = substr(file, 1, at - 1)
    gsub(/(\/\/[^\n]*)?\n/, "", head)
    if (head != "" || at + length(block) <= length(file)) fail(begin, "this is not all of " excerpt)
  }
}

function end_of_block(    parameter) {
  if (excerpt != "") {
    compare()
  } else if (language != "cpp") {
    return
  } else if (is_program(block)) {
    name = "program_" ++programs ".cpp"
    printf "%s%s", at_line(begin), block > (out "/" name)
    print name
  } else if (declarations) {
    fragments = fragments at_line(begin) block
  } else {
    parameter = block ~ /process_pool(<[a-z_:]*>)? pool/ ? "" : "[[maybe_unused]] procpool::process_pool<>& pool"
    fragments = fragments "\nvoid fragment_of_line_" begin "(" parameter ") {\n" at_line(begin) block "}\n"
  }
}

# ---- inside a block ----
fenced && /^```$/ {
  end_of_block()
  fenced = 0
  excerpt = ""
  declarations = 0
  next
}
fenced { block = block $0 "\n"; next }

# ---- inside a hidden comment ----
/^<!-- cpp$/ { hidden = NR; fragments = fragments at_line(NR + 1); next }
hidden && /^-->$/ { hidden = 0; next }
hidden { fragments = fragments $0 "\n"; next }

# ---- outside ----
/^[ \t>*-]+```/ || /^```(c\+\+|C\+\+|cxx|cc|hpp|C)/ { fail(NR, "a block that is not checked: begin it with ```cpp at the margin") }
/^```/ {
  fenced = NR
  begin = NR + 1
  language = substr($0, 4)
  block = ""
  next
}
/^<!-- declarations -->$/ { declarations = 1; next }
/^<!-- examples\/[^ ]+ -->$/ { excerpt = $2; next }
NF && (declarations || excerpt != "") { fail(NR, "a block should begin here"); declarations = 0; excerpt = "" }

END {
  if (fenced) fail(fenced, "this block has no end")
  if (hidden) fail(hidden, "this comment has no end")
  if (fragments != "") {
    print "#include <procpool/procpool.hpp>" > (out "/fragments.cpp")
    print "#pragma GCC diagnostic ignored \"-Wunused-variable\"" > (out "/fragments.cpp")
    printf "%s", fragments > (out "/fragments.cpp")
    print "fragments.cpp"
  }
  exit bad
}
