# The demo's second service, on another interpreter: asks the agent for a token over its socket with
# nothing but perl-base. Its audience takes bearer tokens, so it needs no key.
BEGIN { my ($bag) = $^X =~ m{^(.*)/bin/}; @INC = ("$bag/lib") }
use strict;
use warnings;
use IO::Socket::UNIX;

$| = 1;
my $body = qq({"audience":"$ENV{AUDIENCE}"});
my $agent = IO::Socket::UNIX->new(Peer => $ENV{AGENT_SOCKET}) or die "agent: $!\n";
print $agent "POST /v1/token HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n",
  "Content-Type: application/json\r\nContent-Length: ", length $body, "\r\n\r\n", $body;
my $answer = do { local $/; <$agent> };
my ($status) = $answer =~ m{^HTTP/1.1 (\d+)} or die "the agent gave no answer\n";
if ($status == 200) {
  my ($decision) = $answer =~ /"decision":"([^"]+)"/;
  print qq({"event":"token","decision":"$decision"}\n);
} else {
  # One JSON object: everything from the first brace to the last.
  my ($problem) = $answer =~ /(\{.*\})/s;
  $problem =~ s/^\{/{"event":"denied",/;
  $problem =~ s/[\r\n]+//g;
  print "$problem\n";
}
