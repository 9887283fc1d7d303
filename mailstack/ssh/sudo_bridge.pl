# Leads from a Unix socket of a user's to the Docker engine's, which the user may not use and root may. It is run by
# sudo, and ends when its standard input does: sudo -n perl -e PROGRAM SOCKET ENGINE-SOCKET USER-ID
#
# One program for all that a connection leads there: sshd_config(5), MaxSessions. Sockets of killed ones are removed.
# Perl is part of every Debian (perl-base is essential); Docker's own command need not be there.
use strict; use IO::Socket::UNIX; use IO::Select;
my ($ours, $engine, $user) = @ARGV;
$SIG{CHLD} = "IGNORE"; umask 0077; $| = 1;
for (glob $ours =~ s/[^-]*$/*/r) {
  next unless -S;
  next if -M $_ > 1 / 1440 ? IO::Socket::UNIX->new(Peer => $_) || !$!{ECONNREFUSED} : $_ ne $ours;
  unlink;
}
my $listener = IO::Socket::UNIX->new(Local => $ours, Listen => 64) or die "$ours: $!\n";
chown $user, -1, $ours; print "ready\n";
my $all = IO::Select->new(\*STDIN, $listener);
while (my @ready = $all->can_read) {
  for (@ready) {
    if ($_ != $listener) { unlink $ours; exit }
    my $one = $listener->accept or next;
    fork or serve($one);
  }
}
sub serve {
  my ($one) = @_;
  my $two = IO::Socket::UNIX->new(Peer => $engine) or exit;
  my $both = IO::Select->new($one, $two);
  while (my @ready = $both->can_read) {
    for my $from (@ready) {
      my $to = $from == $one ? $two : $one;
      if (sysread($from, my $data, 65536)) {
        my $done = 0;
        while ($done < length $data) { $done += syswrite($to, $data, length($data) - $done, $done) // exit }
      } else { $both->remove($from); shutdown($to, 1) }
    }
  }
  exit;
}
