# Puts Postfix's configuration together at each start of the container. It lies in a volume, where edits by hand survive;
# the copy in `.generated` is what was generated last. A file that differs from its copy was edited by hand, and is kept.
use strict;
use warnings;

my ($template, $config, $generated) = ('/usr/share/mailstack', '/etc/postfix', '/etc/postfix/.generated');
my $debian = '/usr/share/mailstack-debian';    # the files that Debian's package makes, for compose/blank.yaml

sub slurp {
    my ($path) = @_;
    open my $file, '<', $path or return undef;
    local $/;
    return scalar(<$file>) // '';
}

sub spit {
    my ($path, $text, $mode) = @_;
    open my $file, '>', $path or die "$path: $!\n";
    chmod $mode, $file if $mode;
    print $file $text;
    close $file or die "$path: $!\n";
}

# The files of a directory and its directories, by their names in it.
sub tree {
    my ($top, $below) = (@_, '');
    my @names = map { "$below$_" } do { opendir my $dir, "$top/$below" or return; grep { !/^\.\.?$/ } readdir $dir };
    return map { -d "$top/$_" ? tree($top, "$_/") : $_ } @names;
}

# `postconf -e`: replaces a parameter where it stands, else adds it at the end. Lines that begin with blanks continue it.
sub set_parameter {
    my ($text, $name, $value) = @_;
    return $text if $text =~ s/^\Q$name\E[ \t]*=.*\n(?:[ \t]+\S.*\n)*/$name = $value\n/m;
    return "$text$name = $value\n";
}

# name → text of each file, from the image's template and the lab's own settings: `name = value` goes to main.cf,
# `service/type/name = value` to master.cf (postconf(1), -P). A blank machine has Debian's files instead of the lab's.
sub generate {
    my ($settings) = @_;
    my %text = map { $_ => slurp("$template/$_") } tree($template);
    my $mailname = mailname($settings);
    $text{mailname} = "$mailname\n";
    if (is_blank($settings)) {
        $text{$_} = slurp("$debian/$_") for tree($debian);
        # What Debian asks for: the system mail name, and the name of the machine.
        my @lines = split /^/, $text{'main.cf'};
        s/example[.]com/$mailname/g for grep { /^(?:myhostname|mydestination) = / } @lines;
        $text{'main.cf'} = join '', @lines;
    }
    my @services;
    for (split /\n/, $settings) {
        $text{'main.cf'} = set_parameter($text{'main.cf'}, $1, $2) if /^([^\/= ]+) *= *(.*)/;
        push @services, "$1=$2" if /^([^= ]*\/[^= ]*) *= *(.*)/;
    }
    if (@services) {
        mkdir '/run/generating';
        spit("/run/generating/$_", $text{$_}) for qw(main.cf master.cf);
        system('postconf', '-c', '/run/generating', '-P', @services) == 0 or exit 1;
        $text{'master.cf'} = slurp('/run/generating/master.cf');
    }
    return \%text;
}

sub is_blank { return $_[0] =~ /^template: debian$/m }

# What comes after the @ of this machine's users.
sub mailname { return $_[0] =~ /^(?:mailname:|myorigin *=) *(.+)/m ? $1 : '' }

# What Debian does once the package is there: a self-signed certificate, as ssl-cert makes it, and a start of Postfix, which
# copies files for the services that are shut in the queue directory (postfix-script, configure-instance.sh).
sub finish_blank {
    my ($name) = (slurp("$generated/main.cf") // '') =~ /^myhostname = (.*)/m;
    umask 077;
    my @openssl = qw(openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -keyout /run/snakeoil.key -out /run/snakeoil.pem);
    push @openssl, '-subj', "/CN=$name", '-addext', "subjectAltName=DNS:$name";
    system('sh', '-c', 'exec "$@" 2>/dev/null', 'sh', @openssl) == 0 or die "openssl: code $?\n";
    chmod 0644, '/run/snakeoil.pem';
    umask 022;
    system('postfix', 'check');    # what is wrong, it says; main.cf may have been edited
}

# Writes the files, but those that were edited by hand; returns the names of these.
sub install {
    my ($new) = @_;
    my @edited;
    # Postfix waits, for up to two seconds, until a file that it reads is no longer brand-new.
    my $time = (stat "$template/main.cf")[9];
    mkdir for $generated, map { ("$config/$_", "$generated/$_") } qw(postfix-files.d sasl);
    for my $name (sort keys %$new) {
        my ($present, $last) = (slurp("$config/$name"), slurp("$generated/$name"));
        if (defined $last ? defined $present && $present eq $last : !defined $present) {
            write_file("$config/$name", $new->{$name}, $time);
        } elsif (!defined $present || $present ne $new->{$name}) {
            push @edited, $name;
        }
        write_file("$generated/$name", $new->{$name}, $time) if !defined $last || $last ne $new->{$name};
    }
    return @edited;
}

sub write_file {
    my ($path, $text, $time) = @_;
    return if (slurp($path) // "\0") eq $text;
    spit($path, $text);
    utime $time, $time, $path;
}

# The password of the student's mailbox, in a file of the student, where mail(1) and mutt(1) find it. Returns the address
# of the mailbox; nothing when the lab has no such account.
sub write_ticket {
    my ($account, $password) = (slurp('/run/secrets/student') // '') =~ /^([^:]+):(.*)/ or return;
    my ($uid, $gid, $home) = (getpwnam 'student')[2, 3, 7];
    s/([^\w.-])/sprintf '%%%02X', ord $1/ge for $account, $password;
    # There is no CAP_CHOWN: a new file belongs to who makes it.
    local $) = "$gid $gid";
    local $> = $uid;
    spit("$home/.mu-tickets", "imaps://$account:$password\@dovecot\n", 0600);
    return "imaps://$account\@dovecot";
}

# Returns the names of the files that were edited by hand. Without any, a mistake is the definition's: it dies.
sub configure {
    my $settings = slurp('/run/mailstack/sender.cf') // die "/run/mailstack/sender.cf: $!\n";
    my $new = generate($settings);
    my @edited = install($new);

    mkdir '/run/relay', 0700;
    # Debian's authorities, the lab's own, and that of a relay outside, if it has one.
    my @authorities = ('/etc/ssl/certs/ca-certificates.crt', glob '/run/mailstack/*.pem');
    spit('/run/relay/ca-certificates.crt', join('', map { slurp($_) // '' } @authorities));
    # The lab's own authority, for who is not root: the files that are handed in are root's alone.
    spit('/run/ca.pem', slurp('/run/mailstack/ca.pem') // '', 0644);
    # For mailutils: what comes after the @ of a user of this machine, and the mailbox of the student.
    my $mailutils = 'address { email-domain "' . mailname($settings) . "\"; };\n";
    my $mailbox = write_ticket();
    $mailutils .= "mailbox { mailbox-pattern \"$mailbox\"; };\n" if $mailbox;
    spit('/run/mailutils.conf', $mailutils);
    my $banner = slurp('/usr/local/lib/mailstack/banner');
    $banner =~ s/\A.*/Your machine: its Postfix is as Debian installs it. Nothing leaves the lab./ if is_blank($settings);
    spit('/run/motd', $banner, 0644);
    if (is_blank($settings)) {
        finish_blank();
    } else {
        # postmap(1) reads main.cf, and the edited one may have a mistake in it.
        local $ENV{MAIL_CONFIG} = $generated;
        my ($relay) = reverse((slurp("$config/main.cf") // '') =~ /^relayhost[ \t]*=[ \t]*(.*)/mg);
        system('sh', '-c', 'exec relay-credentials "$1" < /run/secrets/relay', 'sh', $relay // '') == 0 or exit 1;
    }
    # `mailstack status` looks for changes by hand once this file is there, and in /run/relay for newer files.
    spit('/run/started', '');
    return @edited;
}

1;
